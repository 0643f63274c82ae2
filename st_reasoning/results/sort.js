"use strict";
// Sorts tables by the button in a column's head; cells say by data-v what they are worth. Without it nothing is lost
// but the sorting.
for (const table of document.querySelectorAll("table[data-sort]")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  for (const [column, head] of heads.entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const worth = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
      const sign = up ? 1 : -1;
      const rows = [...body.rows].map((row) => [worth(row), row]);
      rows.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");  // what is missing stays last
        const x = Number(a), y = Number(b);
        return sign * (Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y);
      });
      body.append(...rows.map(([, row]) => row));
    });
  }
}
