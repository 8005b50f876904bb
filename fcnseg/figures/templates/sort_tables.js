for (const head of document.querySelectorAll("th")) head.onclick = () => {
  const table = head.closest("table"), column = head.cellIndex;
  const key = row => { const text = row.cells[column].dataset.value ?? row.cells[column].innerText;
    const number = parseFloat(text); return isNaN(number) ? text : number; };
  const sign = head.dataset.up = head.dataset.up === "1" ? "-1" : "1";
  [...table.tBodies[0].rows].sort((a, b) => { const x = key(a), y = key(b);
    return sign * (typeof x === typeof y ? (x > y) - (x < y) : typeof x === "number" ? -1 : 1); })
    .forEach(row => table.tBodies[0].append(row));
};
