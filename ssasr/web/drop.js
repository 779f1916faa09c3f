// A file dropped anywhere on the page.

/** `dropped(file)`: called with the first one. `veil` is shown while files are over the page. */
export function acceptDrops(veil, dropped) {
  let over = 0; // elements that have been entered and not left
  const carriesFiles = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
  const show = (count) => {
    over = Math.max(0, count);
    veil.hidden = over === 0;
  };
  addEventListener("dragenter", (event) => carriesFiles(event) && show(over + 1));
  addEventListener("dragleave", (event) => carriesFiles(event) && show(over - 1));
  addEventListener("dragover", (event) => {
    if (carriesFiles(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    show(0);
    const [file] = event.dataTransfer.files;
    if (file) dropped(file);
  });
}
