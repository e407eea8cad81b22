// An image file, chosen by the button or dropped anywhere on the page.

let chooser = null
let count = 0

export default function ({ upload, limit }, event) {
  function take(file) {
    if (file == null) return
    if (file.size > limit) {
      upload.data = { size: [file.size], count: [++count] } // not its content: it would be refused
      return
    }
    const reader = new FileReader()
    reader.onload = () => {
      const content = reader.result.slice(reader.result.indexOf(",") + 1)
      upload.data = { content: [content], count: [++count] }
    }
    reader.readAsDataURL(file)
  }
  if (chooser == null) {
    chooser = document.createElement("input")
    chooser.type = "file"
    chooser.id = "image-file"
    chooser.accept = "image/png,image/jpeg"
    chooser.hidden = true
    chooser.onchange = () => {
      take(chooser.files[0])
      chooser.value = "" // so that the same file may be chosen again
    }
    document.body.append(chooser)
    document.addEventListener("dragover", (drag) => drag.preventDefault())
    document.addEventListener("drop", (drop) => {
      drop.preventDefault()
      take(drop.dataTransfer.files[0])
    })
  }
  if (event.event_name == "button_click") chooser.click()
}
