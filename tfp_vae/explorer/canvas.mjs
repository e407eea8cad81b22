// Drawing with the mouse: the ink stays in the browser until a stroke is done.

const RADIUS = 1.6 // pixels of the image, of a stroke with a soft edge
let last = null

function dab(pixels, height, width, x, y) {
  for (let row = Math.floor(y - RADIUS); row <= y + RADIUS; row++) {
    for (let column = Math.floor(x - RADIUS); column <= x + RADIUS; column++) {
      if (row < 0 || row >= height || column < 0 || column >= width) continue
      const distance = Math.hypot(column + 0.5 - x, row + 0.5 - y)
      const shade = Math.round(255 * Math.min(Math.max(RADIUS - distance, 0), 1))
      const at = row * width + column
      pixels[at] = Math.max(pixels[at], shade)
    }
  }
}

export default function ({ ink, drawn, height, width }, event) {
  const pixels = ink.data.image[0]
  if (event.event_name == "button_click") {
    pixels.fill(0)
    ink.change.emit()
    return
  }
  const begins = event.event_name == "panstart" || event.event_name == "tap"
  const from = begins || last == null ? event : last
  const steps = Math.ceil(2 * Math.hypot(event.x - from.x, event.y - from.y)) + 1
  for (let step = 1; step <= steps; step++) {
    const part = step / steps
    dab(pixels, height, width, from.x + part * (event.x - from.x), from.y + part * (event.y - from.y))
  }
  const goes_on = event.event_name == "pan" || event.event_name == "panstart"
  last = goes_on ? { x: event.x, y: event.y } : null
  ink.change.emit()
  if (last == null) {
    const flat = Array.from(pixels)
    const rows = Array.from({ length: height }, (_, row) => flat.slice(row * width, (row + 1) * width))
    drawn.data = { ink: rows.reverse().flat() } // those of the plot run upwards
  }
}
