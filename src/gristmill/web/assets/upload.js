"use strict";
// Forms with a file: it can be dropped on them, and its way to the server is shown. Without this script they work, too.
for (const form of document.querySelectorAll("form[data-upload]")) {
  const field = form.querySelector("input[type=file]");
  const drop = form.querySelector(".drop");
  const button = form.querySelector("button");
  const sending = form.querySelector(".sending");
  const bar = sending.querySelector("progress");
  const told = sending.querySelector("span");
  const problem = document.getElementById("problem");
  const megabytes = (size) => (size / 1e6).toFixed(1) + " MB";

  const tell = (text) => {
    const line = document.createElement("p");
    line.className = "error";
    line.textContent = text;
    problem.replaceChildren(line);
    problem.scrollIntoView({ block: "nearest" });
  };
  const idle = () => {
    sending.hidden = true;
    button.disabled = false;
  };

  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const files = event.dataTransfer.files;
    if (files.length !== 1) tell("Drop one file at a time.");
    else field.files = files;
  });
  // A file that misses the field must not replace the page.
  for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());

  form.addEventListener("submit", (event) => {
    if (!field.files.length) return;
    event.preventDefault();
    problem.replaceChildren();
    sending.hidden = false;
    button.disabled = true;
    // The fields come before the file, whatever their order on the page.
    const data = new FormData();
    for (const [name, value] of new FormData(form)) if (!(value instanceof File)) data.append(name, value);
    data.append(field.name, field.files[0]);
    const request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.setRequestHeader("Accept", "text/html");
    request.upload.addEventListener("progress", (at) => {
      if (!at.lengthComputable) return;
      bar.max = at.total;
      bar.value = at.loaded;
      told.textContent = megabytes(at.loaded) + " of " + megabytes(at.total);
    });
    request.upload.addEventListener("load", () => { told.textContent = "Sent. The server is looking at it."; });
    request.addEventListener("load", () => {
      if (request.status < 400) {
        location.assign(request.responseURL);
        return;
      }
      const answer = new DOMParser().parseFromString(request.responseText, "text/html");
      const said = answer.querySelector(".error") || answer.querySelector("main p");
      tell(said ? said.textContent : "The server answered with status " + request.status + ".");
      idle();
    });
    request.addEventListener("error", () => {
      tell("The file could not be sent: the connection to the server broke off. Nothing was started; try again.");
      idle();
    });
    request.send(data);
  });
  addEventListener("pageshow", idle);
}
