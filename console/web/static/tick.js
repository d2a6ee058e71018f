// One box in the head of a table that ticks or clears all of its boxes; without it each is ticked by hand.
"use strict";

for (const place of document.querySelectorAll("[data-tick-all]")) {
  const boxes = [...place.closest("table").querySelectorAll("tbody input[type=checkbox]")];
  if (!boxes.length) continue;
  const all = document.createElement("input");
  all.type = "checkbox";
  all.setAttribute("aria-label", "all letters on this page");
  const follow = () => {
    const ticked = boxes.filter((box) => box.checked).length;
    all.checked = ticked === boxes.length;
    all.indeterminate = ticked > 0 && !all.checked;
  };
  all.addEventListener("change", () => boxes.forEach((box) => { box.checked = all.checked; }));
  boxes.forEach((box) => box.addEventListener("change", follow));
  follow(); // a browser that comes back to a page remembers what was ticked
  place.replaceChildren(all);
}
