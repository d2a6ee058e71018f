// Keeps the figures of Flow live. Without it the page shows how they were when it was loaded.
"use strict";

const figures = new Map();
for (const element of document.querySelectorAll("[data-figure]")) {
  const name = element.dataset.figure;
  figures.set(name, [...(figures.get(name) || []), element]);
}

const list = document.getElementById("verdict");
const news = document.getElementById("news");
const withoutNumbers = (sentence) => sentence.replace(/[0-9.\u202f]+/g, "");
let known = new Set([...list.children].map((item) => withoutNumbers(item.textContent.trim())));

// The list changes in place. A screen reader is told only of what is wrong and was not said before; that a number in
// a sentence has changed is no news.
function tellVerdict(said) {
  while (list.children.length > said.length) list.lastElementChild.remove();
  said.forEach(([how, sentence], n) => {
    const item = list.children[n] || list.appendChild(document.createElement("li"));
    if (item.className !== how) item.className = how;
    if (item.textContent.trim() !== sentence) item.textContent = sentence;
  });
  const fresh = said.filter(([how, sentence]) => how !== "good" && !known.has(withoutNumbers(sentence)));
  if (fresh.length) news.textContent = fresh.map(([, sentence]) => sentence).join(" ");
  known = new Set(said.map(([, sentence]) => withoutNumbers(sentence)));
}

function tellPauses(paused) {
  for (const [stage, isPaused] of Object.entries(paused)) {
    for (const element of document.querySelectorAll(`[data-paused="${stage}"]`)) element.hidden = !isPaused;
    for (const element of document.querySelectorAll(`[data-flowing="${stage}"]`)) element.hidden = isPaused;
  }
}

function tell(event) {
  const told = JSON.parse(event.data);
  heardAt = Date.now();
  for (const [name, text] of Object.entries(told.texts)) {
    for (const element of figures.get(name) || []) {
      if (element.textContent !== text) element.textContent = text;
    }
  }
  tellVerdict(told.verdict);
  tellPauses(told.paused);
}

const still = "The figures stand still: the console does not answer, or the session has ended. Load the page again.";
const MOST_SILENCE_MS = 15000;
let heardAt = Date.now();

// A console that is gone says nothing, and the browser goes on asking in silence.
setInterval(() => {
  if (Date.now() - heardAt > MOST_SILENCE_MS) tellVerdict([["warn", still]]);
}, 2000);

// The stream ends each minute, and the browser begins another. What it gives up for good was refused: no session, or
// a proxy that answers for a console that is away.
function listen() {
  const stream = new EventSource("/api/live");
  stream.addEventListener("message", tell);
  stream.addEventListener("error", () => {
    if (stream.readyState !== EventSource.CLOSED) return;
    tellVerdict([["warn", still]]);
    setTimeout(listen, 5000);
  });
}

listen();
