"use strict";

const collator = new Intl.Collator("en", { numeric: true });

/** What a cell is sorted by: its number if it has one, else its text. */
function order(cell) {
  const number = cell.dataset.order;
  return number === undefined ? cell.textContent : number === "" ? NaN : Number(number);
}

/** Compares two rows by a column; what has no number goes last, whichever the direction. */
function compare(first, second, column, sign) {
  const [a, b] = [order(first.cells[column]), order(second.cells[column])];
  if (typeof a === "string" || typeof b === "string") return sign * collator.compare(a, b);
  if (Number.isNaN(a) || Number.isNaN(b)) return Number(Number.isNaN(a)) - Number(Number.isNaN(b));
  return sign * (a - b);
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((first, second) => compare(first, second, column, falls ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}

function makeFilters(form) {
  const rows = [...document.getElementById(form.dataset.table).tBodies[0].rows];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const apply = () => {
    const words = form.querySelector("input").value.toLowerCase().split(/\s+/);
    const chosen = [...form.querySelectorAll("select")].filter((select) => select.value);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !(
        words.every((word) => texts.get(row).includes(word)) &&
        chosen.every((select) => row.cells[select.dataset.column].textContent === select.value)
      );
      shown += Number(!row.hidden);
    }
    form.querySelector("output").textContent = `${shown} of ${rows.length}`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.querySelector("button[type=reset]").addEventListener("click", (event) => {
    event.preventDefault(); // by itself the form would change after its listeners have run
    form.reset();
    apply();
  });
  apply();
}

const dialog = document.getElementById("exhibit");
let exhibits = null;
let siblings = [];
let current = "";

function make(tag, text, ...children) {
  const element = document.createElement(tag);
  element.textContent = text;
  element.append(...children);
  return element;
}

/** Shows the figures of a key in the dialog. */
function show(key) {
  exhibits ??= JSON.parse(document.getElementById("exhibits").textContent);
  if (!Object.hasOwn(exhibits, key)) return;
  const exhibit = exhibits[key];
  current = key;
  document.getElementById("exhibit-title").textContent = exhibit.title;
  const facts = exhibit.facts.map(([value, what]) => make("div", "", make("dt", what), make("dd", value)));
  dialog.querySelector("dl").replaceChildren(...facts);
  const figures = exhibit.pictures.map(([caption, address]) => {
    const image = make("img", "");
    image.src = address;
    image.alt = caption;
    return make("figure", "", image, make("figcaption", caption));
  });
  dialog.querySelector(".pictures").replaceChildren(...figures);
  const alone = siblings.length < 2;
  document.getElementById("previous").hidden = alone;
  document.getElementById("next").hidden = alone;
  if (!dialog.open) {
    dialog.showModal();
    document.getElementById("close").focus();
  }
  history.replaceState(null, "", `#${key}`);
}

/** Shows the exhibit so many places further on in the list or table it was opened from. */
function move(places) {
  const index = siblings.indexOf(current);
  show(siblings[(index + places + siblings.length) % siblings.length]);
}

function keysBeside(element) {
  const found = [...element.parentElement.querySelectorAll(":scope > [data-key]")];
  return found.filter((other) => !other.hidden).map((other) => other.dataset.key);
}

document.querySelectorAll("form.controls").forEach((form) => {
  makeFilters(form);
  makeSortable(document.getElementById(form.dataset.table));
});
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-key]");
  if (opener && !String(getSelection())) {
    siblings = keysBeside(opener);
    show(opener.dataset.key);
  } else if (event.target === dialog) {
    dialog.close(); // outside of it, on the backdrop
  }
});
dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
dialog.addEventListener("keydown", (event) => {
  const places = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (places && siblings.length > 1) move(places);
});
document.getElementById("close").addEventListener("click", () => dialog.close());
document.getElementById("previous").addEventListener("click", () => move(-1));
document.getElementById("next").addEventListener("click", () => move(1));
if (location.hash.length > 1) show(location.hash.slice(1));
