// The page of a run: its mesh on the stage, its files to be saved.

function bytesOf(address) {
  return Uint8Array.from(atob(address.slice(address.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
}

// Every file is in the page once: in its own link, or in the picture that the link names.
function offerDownloads() {
  for (const link of document.querySelectorAll("a[download]")) {
    const { of } = link.dataset;
    const address = of ? document.getElementById(of).getAttribute("src") : link.getAttribute("href");
    link.href = URL.createObjectURL(new Blob([bytesOf(address)], { type: "application/octet-stream" }));
    link.hidden = false;
  }
}

const mesh = bytesOf(document.getElementById("mesh").getAttribute("href"));
offerDownloads(); // which gives the link another address
openStage(mesh);
