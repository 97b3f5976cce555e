// Two aids for the reader: a chart answers the pointer and the arrow keys with its values, and the embedded samples can be browsed.
// What a model wrote enters the page as textContent only, never as markup.
"use strict";

function make(tag, className, text) {
  const node = document.createElement(tag);
  node.className = className || "";
  if (text !== undefined) node.textContent = text;
  return node;
}

const fixed = (value, digits) => (value === null ? "–" : value.toFixed(digits).replace("-", "−"));
const signed = (value) => (value > 0 ? "+" : "") + fixed(value, 2);

// -- charts: every strip of a drawing (.hit) carries its values in data-tip

const tip = document.body.appendChild(make("div", "tip"));
let lit = null;

function light(strip) {
  if (lit) lit.classList.remove("lit");
  lit = strip;
  tip.style.display = strip ? "block" : "none";
  if (!strip) return;
  strip.classList.add("lit");
  tip.textContent = strip.dataset.tip;
  const box = strip.getBoundingClientRect();
  const half = tip.offsetWidth / 2;
  const rightmost = document.documentElement.clientWidth - half - 8;
  const x = Math.min(Math.max(box.left + box.width / 2, half + 8), rightmost);
  tip.style.left = x - half + window.scrollX + "px";
  tip.style.top = Math.max(box.top - tip.offsetHeight - 6, 4) + window.scrollY + "px";
}

document.addEventListener("pointerover", (event) => light(event.target.closest(".hit")));
for (const svg of document.querySelectorAll("svg")) {
  const strips = [...svg.querySelectorAll(".hit")];
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || !strips.length) return;
    event.preventDefault();
    const entered = move > 0 ? 0 : strips.length - 1;
    const next = strips.includes(lit) ? strips.indexOf(lit) + move : entered;
    light(strips[Math.min(strips.length - 1, Math.max(0, next))]);
  });
  svg.addEventListener("blur", () => light(null));
}

// -- samples: steps, their groups, a group's candidates

const data = document.getElementById("samples-data");
if (data) browse(JSON.parse(data.textContent));

function browse(steps) {
  const pick = document.getElementById("pick-step");
  for (const step of steps) {
    const more = step.groups_total > step.groups.length ? ` of ${step.groups_total}` : "";
    pick.appendChild(make("option", "", `step ${step.step} (${step.groups.length}${more} groups)`));
  }
  pick.addEventListener("change", () => showStep(steps[pick.selectedIndex]));
  pick.selectedIndex = steps.length - 1;
  showStep(steps[pick.selectedIndex]);
}

function showStep(step) {
  const buttons = step.groups.map((group) => {
    const button = make("button");
    const figures = `mean ${fixed(group.mean, 2)} · std ${fixed(group.std, 2)}`;
    button.append(make("span", "excerpt", group.prompt), make("span", "meta", figures));
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      showGroup(group);
    });
    return button;
  });
  document.getElementById("groups").replaceChildren(...buttons);
  if (buttons.length) buttons[0].click();
}

function showGroup(group) {
  const noise = group.noise === null ? "" : `, judge's noise ${fixed(group.noise, 3)}`;
  const facts = [
    `mean ${fixed(group.mean, 2)}, std ${fixed(group.std, 2)}${noise}`,
    `judge ${group.judge}, version ${group.judge_version}`,
    `generated in ${fixed(group.generate_s, 1)} s, scored in ${fixed(group.score_s, 1)} s by ${group.worker}`,
    `group ${group.group_id}, epoch ${group.epoch}, attempt ${group.attempt}, lineage ${group.lineage}`,
  ];
  const widest = Math.max(...group.candidates.map((candidate) => Math.abs(candidate.advantage || 0))) || 1;
  document.getElementById("sample").replaceChildren(
    make("h3", "", `Prompt ${group.prompt_id}`),
    make("p", "prompt text", group.prompt),
    make("p", "meta", facts.join(" · ")),
    ...group.candidates.map((candidate) => candidateCard(candidate, widest)),
  );
}

function candidateCard(candidate, widest) {
  const card = make("article", "candidate");
  const side = card.appendChild(make("div", "side"));
  side.appendChild(make("div", "score", candidate.score === null ? candidate.status : fixed(candidate.score, 2)));
  side.appendChild(advantageBar(candidate.advantage, widest));
  if (candidate.digits) side.appendChild(digitBars(candidate.digits));
  const body = card.appendChild(make("div"));
  body.appendChild(make("p", "text", candidate.text || "(nothing)"));
  if (candidate.verdict !== null) body.appendChild(make("p", "verdict text", `Judge: ${candidate.verdict}`));
  const facts = [
    `${candidate.tokens} tokens`,
    candidate.finish === "length" ? "truncated" : "ended by itself",
    candidate.versions.length ? `sampled by version ${candidate.versions.join(", ")}` : "no token sampled",
  ];
  if (candidate.mass !== null) facts.push(`digit mass ${fixed(candidate.mass, 2)}`);
  if (candidate.again !== null) facts.push(`scored again ${fixed(candidate.again, 2)}`);
  if (candidate.gap !== null) facts.push(`gap ${fixed(candidate.gap, 3)} nats per token`);
  body.appendChild(make("p", "meta", facts.join(" · ")));
  return card;
}

function advantageBar(advantage, widest) {
  const block = make("div", `advantage ${advantage > 0 ? "up" : "down"}`, `advantage ${signed(advantage)}`);
  const bar = block.appendChild(make("div", "track")).appendChild(make("div", "bar"));
  const share = (50 * Math.abs(advantage || 0)) / widest;
  bar.style.width = `${share}%`;
  bar.style.left = `${advantage < 0 ? 50 - share : 50}%`;
  return block;
}

function digitBars(shares) {
  const block = make("div", "digits");
  block.setAttribute("role", "img");
  block.title = "The judge's distribution: " + shares.map((share, digit) => `${digit}: ${Math.round(100 * share)} %`).join(", ");
  block.setAttribute("aria-label", block.title);
  shares.forEach((share, digit) => {
    const column = block.appendChild(make("div", "digit"));
    column.appendChild(make("div", "share")).style.height = `${26 * share}px`;
    column.appendChild(make("span", "", digit));
  });
  return block;
}
