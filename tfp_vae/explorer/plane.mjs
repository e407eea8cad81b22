// The latent vector: where the plane's point or a slider moves it, what is asked of the server.
// One question is on its way at a time, and the next is the latest wish: a slow server or line
// makes the picture follow in larger steps, never later and later.

const PATIENCE = 1000 // ms without an answer, after which the next question goes out all the same

let wanted = null
let asked_at = null

function inside(value, range) {
  return Math.min(Math.max(value, range.start), range.end)
}

function show(z, { marker, caption, sliders, order, axes }) {
  const [across, up] = axes.data.dim
  marker.data = { x: [z[across]], y: [z[up]] }
  caption.text = `z[${across}] = ${z[across].toFixed(2)}, z[${up}] = ${z[up].toFixed(2)}`
  sliders.forEach((slider, k) => {
    if (slider.value != z[order[k]]) slider.value = z[order[k]]
  })
}

function ask(latent) {
  const waiting = asked_at != null && performance.now() - asked_at < PATIENCE
  if (wanted == null || waiting) return
  const z = wanted
  wanted = null
  asked_at = performance.now()
  latent.data = { z }
}

export default function (args, event) {
  const { latent, picture, plane, sliders, order, axes } = args
  if (event === picture) {
    asked_at = null
    ask(latent)
    return
  }
  const z = Array.from(wanted ?? latent.data.z)
  if (event.x != null) {
    const [across, up] = axes.data.dim
    z[across] = inside(event.x, plane.x_range)
    z[up] = inside(event.y, plane.y_range)
  } else if (sliders.includes(event)) {
    const dim = order[sliders.indexOf(event)]
    if (z[dim] == event.value) return
    z[dim] = event.value
  } else {
    show(z, args) // the server has put it there, the plane shows other dimensions, or all is new
    return
  }
  wanted = z
  show(z, args)
  ask(latent)
}
