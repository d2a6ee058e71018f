// Shows how far something has come, without loading the page anew: what has the focus keeps it. Without it the page
// loads itself every two seconds.
"use strict";

const live = document.querySelector("[data-live]");

async function look() {
  try {
    const answer = await fetch(location.href);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = page.querySelector("[data-live]");
    if (!next || next.dataset.live !== live.dataset.live) {
      location.reload();
      return;
    }
    live.replaceChildren(...next.childNodes);
  } catch {
    // the console is away; it is asked again
  }
  setTimeout(look, 2000);
}

if (live && live.dataset.live === "yes") setTimeout(look, 2000);
