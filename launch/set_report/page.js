// The browser of prompts: a choice for each field with few values, and a search in the texts.
// What a model wrote enters the page as textContent only, never as markup.
"use strict";

const rows = JSON.parse(document.getElementById("samples-data").textContent);
const chosen = {};
const MOST = 100;

function make(tag, className, text) {
  const node = document.createElement(tag);
  node.className = className || "";
  if (text !== undefined) node.textContent = text;
  return node;
}

function show() {
  const words = document.getElementById("find").value.toLowerCase();
  const fits = rows.filter(
    (row) =>
      row.prompt.toLowerCase().includes(words) &&
      Object.entries(chosen).every(([field, value]) => !value || row.fields[field] === value),
  );
  const list = document.getElementById("list");
  list.replaceChildren(
    ...fits.slice(0, MOST).map((row) => {
      const item = make("div", "prompt-item");
      item.append(
        make("p", "text", row.prompt),
        make("p", "meta", [row.name, ...Object.values(row.fields), row.more].filter(Boolean).join(" · ")),
      );
      return item;
    }),
  );
  const shown = fits.length > MOST ? `the first ${MOST} of ` : "";
  document.getElementById("count").textContent = `${shown}${fits.length} of ${rows.length} prompts on this page`;
}

const filters = document.getElementById("filters");
for (const field of Object.keys(rows.length ? rows[0].fields : {})) {
  const values = [...new Set(rows.map((row) => row.fields[field]).filter(Boolean))].sort();
  if (values.length < 2 || values.length > 60) continue;
  const pick = filters.appendChild(make("select"));
  pick.setAttribute("aria-label", field);
  pick.append(new Option(`every ${field}`, ""), ...values.map((value) => new Option(value, value)));
  pick.addEventListener("change", () => {
    chosen[field] = pick.value;
    show();
  });
}
document.getElementById("find").addEventListener("input", show);
show();
