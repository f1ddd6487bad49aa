// The page: what changes with the frame, and what changes with the clip or the class.
const verdict = clip => clip.right === null ? "" : clip.right ? "✓ right" : "✗ wrong";
const of = (clip, { joint, person }) => joints[joint] + (clip.M > 1 ? ` of person ${clip.persons[person]}` : "");
/** What the canvases show, in words. */
function words(clip) {
  const best = peak(clip, state.label, state.frame), name = classes[state.label];
  const is = clip.label === null ? "of a class that is not known" : `of class ${classes[clip.label]}`;
  const told = clip.right === null ? "" : clip.right ? ", rightly" : ", wrongly";
  const first = `Clip ${clip.name} ${is}, predicted ${classes[clip.ranked[0]]}${told}. Frame ${state.frame}.`;
  const inside = clip.truth ? clip.truth[best.i] ? ", inside the truth" : ", outside the truth" : "";
  const most = best.i === undefined ? `Here nothing speaks for ${name}.`
    : `Most focus of ${name}: ${of(clip, best)}, ${(best.value / 255).toFixed(2)}${inside}.`;
  if (!clip.truth) return `${first} ${most}`;
  const places = Array.from({ length: clip.M * V }, (_, k) => ({ person: Math.floor(k / V), joint: k % V }));
  const truth = places.filter(({ person, joint }) => clip.truth[(person * clip.T + state.frame) * V + joint]);
  const named = truth.length > 6 ? `${truth.length} joints` : truth.map(place => of(clip, place)).join(", ");
  return `${first} ${most} The truth: ${named || "no joint in this frame"}.`;
}
function paint() {
  const clip = current(), labels = state.two ? [state.label, rival(clip)] : [state.label];
  labels.forEach((label, i) => { drawBody(bodies[i], clip, label); drawMap(maps[i], clip, label); });
  [$("frame").value, $("number").textContent] = [state.frame, `frame ${state.frame} / ${clip.T - 1}`];
  $("says").textContent = words(clip);
  bodies.forEach(canvas => canvas.setAttribute("aria-label", $("says").textContent));
  if (!state.playing) remember();
}
function choice(clip, k) {
  const key = clip.explained.indexOf(k) + 1, kind = key ? "button" : "div", bar = element("span", {});
  bar.style.width = `${100 * clip.p[k]}%`;
  const tags = [k === clip.ranked[0] && "predicted", k === clip.label && "true class"].filter(Boolean).join(", ");
  const made = element(kind, { className: "row choice" }, element("i", { textContent: key || "" }),
    element("span", {}, classes[k], tags && element("small", { textContent: ` · ${tags}` })),
    element("span", { textContent: percent(clip.p[k]) }), element("span", { className: "bar" }, bar));
  if (!key) return made;
  made.setAttribute("aria-pressed", k === state.label);
  const title = `show the focus of ${classes[k]}`;
  return Object.assign(made, { type: "button", title, onclick: () => set({ label: k }) });
}
function show() {
  const clip = current(), second = rival(clip);
  const top = clip.ranked.filter((k, rank) => rank < 5 || clip.explained.includes(k));
  if (second === undefined) state.two = false;
  $("stage").classList.toggle("two", state.two);
  $("two").setAttribute("aria-pressed", state.two);
  [$("two").textContent, $("two").disabled] = [state.two ? "One class" : "Two classes", second === undefined];
  [bodies, maps].forEach(([, canvas]) => { canvas.parentNode.hidden = !state.two; });
  all("figcaption").forEach((caption, i) => {
    const k = i ? second : state.label;
    caption.textContent = k === undefined ? "" : `Focus of ${classes[k]}, ${percent(clip.p[k])}`;
    maps[i].setAttribute("aria-label", `${caption.textContent}: a map of joints and frames`);
  });
  bodies.forEach(canvas => canvas.classList.toggle("turns", clip.C === 3));
  $("turning").hidden = clip.C < 3;
  $("truth").hidden = !clip.truth;
  $("frame").max = clip.T - 1;
  const focused = document.activeElement?.closest(".choice");
  $("choices").replaceChildren(...top.map(k => choice(clip, k)));
  if (focused) $("choices").querySelector("[aria-pressed=true]").focus();
  for (const row of all("#clips .row")) {
    row.setAttribute("aria-current", row.clip === state.clip);
    if (row.clip !== state.clip) continue; // into sight, without a move of the page
    const list = $("clips"), { offsetTop: top, offsetHeight: tall } = row;
    list.scrollTop = limit(list.scrollTop, top + tall - list.clientHeight, top);
  }
  paint();
}
/** Changes the state, within what there is, and shows it. A new clip opens at the most focus of its predicted class. */
function set(change) {
  Object.assign(state, change);
  const clip = current(), fresh = "clip" in change;
  if (!(state.label in clip.focus) || (fresh && !("label" in change))) state.label = clip.explained[0];
  if (fresh && !("frame" in change)) state.frame = state.playing ? 0 : peak(clip, state.label).t || 0;
  state.frame = limit(state.frame, 0, clip.T - 1);
  "clip" in change || "label" in change || "two" in change ? show() : paint();
}
function list() {
  const wanted = { all: () => true, wrong: clip => clip.right === false, right: clip => clip.right };
  const found = clips.map((_, i) => i).filter(i => wanted[$("which").value](clips[i]) &&
    ($("of").value === "" || clips[i].label === Number($("of").value)));
  $("clips").replaceChildren(...found.map(i => {
    const { name, label, ranked, right, p } = clips[i], guess = `${classes[ranked[0]]}, ${percent(p[ranked[0]])}`;
    const says = right ? guess : label === null ? `predicted ${guess}` : `${classes[label]} → ${guess}`;
    const mark = element("span", { className: `mark ${right === false ? "wrong" : ""}`, textContent: verdict(clips[i]) });
    const button = { className: "row", type: "button", clip: i, onclick: () => set({ clip: i }) };
    const lines = [element("b", {}, name, mark), element("small", { textContent: says })];
    return element("li", {}, element("button", button, ...lines));
  }));
  $("none").hidden = found.length > 0;
  return found;
}
function stepClip(by) {
  const shown = all("#clips .row"), place = shown.findIndex(row => row.clip === state.clip);
  const next = shown[place < 0 ? 0 : limit(place + by, 0, shown.length - 1)];
  if (!next) return;
  if (document.activeElement?.closest("#clips")) next.focus({ preventScroll: true });
  set({ clip: next.clip });
}

// The link: the clip, the frame, the class.
let waiting;
function remember() {
  clearTimeout(waiting); // browsers refuse more than a few changes a second
  waiting = setTimeout(() => {
    const link = new URLSearchParams({ clip: clips[state.clip].name, frame: state.frame, class: classes[state.label] });
    if (state.two) link.set("two", "1");
    history.replaceState(null, "", `#${link}`);
  }, 150);
}
function recall() {
  const link = new URLSearchParams(location.hash.slice(1));
  const clip = clips.findIndex(({ name }) => name === link.get("clip"));
  const change = { clip: Math.max(clip, 0), two: link.has("two") }, frame = parseInt(link.get("frame"), 10);
  if (clip >= 0 && frame >= 0) change.frame = frame;
  const label = classes.indexOf(link.get("class"));
  if (label in clips[change.clip].focus) change.label = label;
  set(change);
}

// What a person does.
let last = 0;
function tick(now) {
  if (!state.playing) return;
  if (now - last >= 1000 / Number($("speed").value)) {
    last = now;
    set({ frame: (state.frame + 1) % current().T });
  }
  requestAnimationFrame(tick);
}
function play(playing) {
  state.playing = playing;
  $("play").textContent = playing ? "❚❚ Pause" : "▶ Play";
  $("says").setAttribute("aria-live", playing ? "off" : "polite");
  playing ? requestAnimationFrame(tick) : paint();
}
const step = by => { play(false); set({ frame: state.frame + by }); };
const turn = (yaw, pitch) => {
  if (current().C === 3) set({ yaw: state.yaw + yaw, pitch: limit(state.pitch + pitch, -1.5, 1.5) });
};
const upright = () => set({ yaw: 0, pitch: 0 });
const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
document.addEventListener("keydown", event => {
  const { key, target } = event, clip = current(), arrow = arrows[key];
  if (event.ctrlKey || event.altKey || event.metaKey || target.matches("select")) return;
  if (key === " " && target.matches("button:not([aria-current=true], .choice[aria-pressed=true])")) return;
  if (arrow && event.shiftKey) turn(0.2 * arrow[0], 0.2 * arrow[1]);
  else if (arrow) arrow[0] ? step(arrow[0]) : stepClip(arrow[1]);
  else if (key === " ") play(!state.playing);
  else if (key === "Home" || key === "End") step(key === "Home" ? -clip.T : clip.T);
  else if (key === "0") upright();
  else if (/^[1-9]$/.test(key) && key <= clip.explained.length) set({ label: clip.explained[key - 1] });
  else if (key.toLowerCase() === "c" && rival(clip) !== undefined) set({ two: !state.two });
  else return;
  event.preventDefault();
});
$("play").onclick = () => play(!state.playing);
$("frame").oninput = event => step(Number(event.target.value) - state.frame);
$("two").onclick = () => set({ two: !state.two });
for (const canvas of bodies) {
  let from = null;
  canvas.onpointerdown = event => { canvas.setPointerCapture(event.pointerId); from = event; };
  canvas.onpointermove = event => {
    if (!event.buttons || !from) return;
    turn((event.clientX - from.clientX) / 120, (event.clientY - from.clientY) / 120);
    from = event;
  };
  canvas.ondblclick = upright;
}
for (const canvas of maps) {
  const go = event => {
    const { left, cell, tall, top } = grid(canvas, current()), { T, M } = current();
    const t = limit(Math.floor((event.offsetX - left) / cell), 0, T - 1);
    const m = limit(Math.floor(event.offsetY / tall), 0, M - 1);
    const joint = order[limit(Math.floor((event.offsetY - m * tall - top) / ROW), 0, V - 1)];
    const label = canvas === maps[0] ? state.label : rival(current());
    const value = current().focus[label][(m * T + t) * V + joint] / 255;
    canvas.title = `${of(current(), { joint, person: m })}, frame ${t}: ${value.toFixed(2)}`;
    if (event.buttons) { play(false); set({ frame: t }); }
  };
  canvas.onpointerdown = event => { canvas.setPointerCapture(event.pointerId); go(event); };
  canvas.onpointermove = go;
}
const wrong = clips.filter(clip => clip.right === false).length, right = clips.filter(clip => clip.right).length;
$("which").append(new Option(`all clips (${clips.length})`, "all"), new Option(`wrong only (${wrong})`, "wrong"),
  new Option(`right only (${right})`, "right"));
$("of").append(new Option("every class", ""), ...classes.flatMap((name, k) => {
  const held = clips.filter(({ label }) => label === k).length;
  return held ? [new Option(`${name} (${held})`, k)] : [];
}));
$("speed").append(...[2, 5, 10, 20, 30].map(fps => new Option(`${fps} frames / s`, fps, fps === 10, fps === 10)));
$("which").onchange = $("of").onchange = () => {
  const found = list();
  found.length && !found.includes(state.clip) ? set({ clip: found[0] }) : show();
};
window.addEventListener("hashchange", recall);
const sizes = new ResizeObserver(paint);
bodies.forEach(canvas => sizes.observe(canvas));
list();
recall();
