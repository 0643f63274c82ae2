"use strict";
// Reads heat maps out, cell by cell: by two sliders (keyboard, touch) or by pointing. The numbers come from the tables
// below the figure; without this script the page loses nothing else.
for (const figure of document.querySelectorAll("figure[data-maps]")) {
  const box = figure.querySelector(".readout");
  const [row, column] = box.querySelectorAll("input");
  const output = box.querySelector("output");
  const maps = [...figure.querySelectorAll(".map")];
  const show = () => {
    const a = Number(row.value), b = Number(column.value);
    row.nextElementSibling.textContent = a;
    column.nextElementSibling.textContent = b;
    output.replaceChildren();
    for (const map of maps) {
      const cell = document.getElementById(map.dataset.table).tBodies[0].rows[a].cells[b + 1];
      const width = cell.dataset.h;
      const line = document.createElement("span");
      line.textContent = `${map.dataset.title}: ${cell.textContent}${width ? ` \u00b1 ${width}` : ""}`;
      output.append(line);
      const image = map.querySelector("image"), mark = map.querySelector(".mark");
      const wide = mark.width.baseVal.value, high = mark.height.baseVal.value;
      mark.setAttribute("x", image.x.baseVal.value + b * wide);
      mark.setAttribute("y", image.y.baseVal.value + image.height.baseVal.value - (a + 1) * high);
      mark.classList.add("on");
    }
  };
  const point = (event) => {
    const edge = event.currentTarget.getBoundingClientRect();
    const a = Math.floor((edge.bottom - event.clientY) / edge.height * (Number(row.max) + 1));
    const b = Math.floor((event.clientX - edge.left) / edge.width * (Number(column.max) + 1));
    row.value = a;
    column.value = b;
    show();
  };
  for (const map of maps) {
    const image = map.querySelector("image");
    image.addEventListener("pointermove", point);
    image.addEventListener("pointerdown", point);
  }
  row.addEventListener("input", show);
  column.addEventListener("input", show);
  box.hidden = false;
  show();
}
