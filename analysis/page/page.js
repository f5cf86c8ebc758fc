"use strict";
// Click a column's head to sort by it; again to turn the order round. Cells without a number stay at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      const rows = [...body.rows].map((row) => {
        const cell = row.cells[column];
        const number = cell.dataset.key === undefined ? NaN : Number(cell.dataset.key);
        return { row, number, text: cell.textContent.trim() };
      });
      const numeric = rows.some((item) => !Number.isNaN(item.number));
      rows.sort((a, b) => {
        if (!numeric) return (descending ? -1 : 1) * a.text.localeCompare(b.text);
        if (Number.isNaN(a.number) || Number.isNaN(b.number)) return Number.isNaN(a.number) - Number.isNaN(b.number);
        return (descending ? -1 : 1) * (a.number - b.number);
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      body.append(...rows.map((item) => item.row));
    });
  });
}
