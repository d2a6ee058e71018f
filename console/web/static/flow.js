// Keeps the figures of Flow live. Without it the page shows how they were when it was loaded.
"use strict";

const figures = new Map();
for (const element of document.querySelectorAll("[data-figure]")) {
  const name = element.dataset.figure;
  figures.set(name, [...(figures.get(name) || []), element]);
}

function tellVerdict(said) {
  const list = document.getElementById("verdict");
  const now = said.map(([how, sentence]) => how + sentence).join("\n");
  if (list.dataset.now === now) return; // a reader is told of news only
  list.dataset.now = now;
  list.replaceChildren(...said.map(([how, sentence]) => {
    const item = document.createElement("li");
    item.className = how;
    item.textContent = sentence;
    return item;
  }));
}

const stream = new EventSource("/live");
stream.addEventListener("message", (event) => {
  const told = JSON.parse(event.data);
  for (const [name, text] of Object.entries(told.texts)) {
    for (const element of figures.get(name) || []) {
      if (element.textContent !== text) element.textContent = text;
    }
  }
  tellVerdict(told.verdict);
});
stream.addEventListener("error", () => tellVerdict([["warn", "The figures stand still: the console does not answer."]]));
