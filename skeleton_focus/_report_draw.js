// The clips and how they are drawn. Classic scripts share what they define: _report_page.js uses it.

const $ = id => document.getElementById(id), all = query => [...document.querySelectorAll(query)];
function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
const { joints, bones, rows, classes, colours, clips } = JSON.parse($("data").textContent);
const [bodies, maps] = [all(".body"), all(".map")], V = joints.length, MISSING = -32768, ROW = 13;
const order = rows.flatMap(([, members]) => members);
const state = { clip: 0, frame: 0, label: 0, two: false, yaw: 0, pitch: 0, playing: false };
const percent = p => (p >= 0.995 && p < 1 ? "> 99" : p > 0 && p < 0.005 ? "< 1" : Math.round(100 * p)) + "\u00a0%";
const limit = (value, low, high) => Math.min(Math.max(value, low), high);

// The clips: what each says at once, what it holds when it is first shown.
const bytes = text => Uint8Array.from(atob(text), sign => sign.charCodeAt(0));
for (const clip of clips) {
  clip.ranked = clip.p.map((_, k) => k).sort((a, b) => clip.p[b] - clip.p[a]);
  clip.right = clip.label === null ? null : clip.ranked[0] === clip.label;
  clip.explained = clip.ranked.filter(k => k in clip.focus);
}
function open(clip) {
  if (clip.opened) return clip;
  const [M, T, , C] = clip.shape, raw = new DataView(bytes(clip.x).buffer);
  const at = new Float32Array(M * T * V * 3).fill(NaN);
  for (let i = 0; i < M * T * V; i++) {
    if (raw.getInt16(2 * i * C, true) === MISSING) continue;
    for (let c = 0; c < 3; c++)
      at[3 * i + c] = c < C ? clip.low[c] + (raw.getInt16(2 * (i * C + c), true) + 32767) * clip.step : 0;
  }
  const focus = Object.fromEntries(Object.entries(clip.focus).map(([k, text]) => [k, bytes(text)]));
  const bits = clip.truth === null ? null : bytes(clip.truth);
  const truth = bits && Uint8Array.from({ length: M * T * V }, (_, i) => bits[i >> 3] >> 7 - i % 8 & 1);
  return Object.assign(clip, { opened: true, M, T, C, at, focus, truth });
}
const current = () => open(clips[state.clip]);
const rival = clip => clip.explained.find(k => k !== state.label);
/** The joint of most focus: in one frame, or in all. */
function peak(clip, label, frame = null) {
  let best = { value: 0 };
  for (let i = 0; i < clip.M * clip.T * V; i++) {
    const t = Math.floor(i / V) % clip.T, value = clip.focus[label][i];
    if (value > best.value && (frame === null || t === frame) && !Number.isNaN(clip.at[3 * i]))
      best = { value, i, t, joint: i % V, person: Math.floor(i / V / clip.T) };
  }
  return best;
}

// Drawing.
const rgb = colours.shades.map(hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16)));
const shades = Array.from({ length: 256 }, (_, i) => {
  const place = i / 255 * (rgb.length - 1), k = Math.min(Math.floor(place), rgb.length - 2), share = place - k;
  return rgb[k].map((low, c) => Math.round(low + share * (rgb[k + 1][c] - low)));
});
/** A canvas of the screen's own pixels, emptied, that draws in CSS pixels. */
function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
  [canvas.width, canvas.height] = [Math.round(w * ratio), Math.round(h * ratio)];
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.lineCap = "round";
  return [pen, w, h];
}
/** Where each joint of a clip lies, seen from the chosen side, and the limits of all frames. */
function look(clip) {
  const side = `${state.yaw} ${state.pitch}`;
  if (clip.side === side) return clip.seen;
  const [cy, sy, cp, sp] = [Math.cos(state.yaw), Math.sin(state.yaw), Math.cos(state.pitch), Math.sin(state.pitch)];
  const flat = new Float32Array(clip.at.length / 3 * 2), low = [Infinity, Infinity], high = [-Infinity, -Infinity];
  for (let i = 0; 3 * i < clip.at.length; i++) {
    const [x, y, z] = clip.at.subarray(3 * i, 3 * i + 3), depth = z * cy - x * sy;
    [x * cy + z * sy, y * cp - depth * sp].forEach((value, c) => {
      flat[2 * i + c] = value;
      if (value < low[c]) low[c] = value;
      if (value > high[c]) high[c] = value;
    });
  }
  return Object.assign(clip, { side, seen: { flat, low, high } }).seen;
}
function drawBody(canvas, clip, label) {
  const [pen, w, h] = prepare(canvas), { flat, low, high } = look(clip), size = limit(0.05 * Math.min(w, h), 11, 22);
  const middle = [0, 1].map(c => (low[c] + high[c]) / 2), half = [0, 1].map(c => (high[c] - low[c]) / 2);
  const room = 0.12 * Math.max(...half) + 1e-6, unit = Math.min(w / 2 / (half[0] + room), h / 2 / (half[1] + room));
  const circle = (x, y, radius) => { pen.beginPath(); pen.arc(x, y, radius, 0, 7); };
  for (let m = 0; m < clip.M; m++) {
    const first = (m * clip.T + state.frame) * V, here = [];
    for (let j = 0; j < V; j++) {
      const i = first + j;
      const x = w / 2 + (flat[2 * i] - middle[0]) * unit, y = h / 2 - (flat[2 * i + 1] - middle[1]) * unit;
      if (!Number.isNaN(x)) here[j] = { x, y, heat: clip.focus[label][i], true: clip.truth && clip.truth[i] };
    }
    const drawn = here.filter(Boolean), limbs = bones.filter(([a, b]) => here[a] && here[b]);
    const line = ([a, b]) => {
      pen.beginPath();
      pen.moveTo(here[a].x, here[a].y);
      pen.lineTo(here[b].x, here[b].y);
      pen.stroke();
    };
    // Wide lines, and narrower ones on top: what shows is the outline of their union.
    for (const [wide, colour] of [[1.5 * size + 4, colours.truth], [1.5 * size, "white"]]) {
      [pen.strokeStyle, pen.fillStyle, pen.lineWidth] = [colour, colour, wide];
      limbs.filter(([a, b]) => here[a].true && here[b].true).forEach(line);
      drawn.filter(joint => joint.true).forEach(({ x, y }) => { circle(x, y, wide / 2); pen.fill(); });
    }
    [pen.strokeStyle, pen.lineWidth] = [colours.bone, 0.3 * size];
    limbs.forEach(line);
    for (const { x, y, heat } of drawn.sort((a, b) => a.heat - b.heat)) { // the joints that matter lie on top
      circle(x, y, size / 2 * (0.38 + 0.62 * heat / 255));
      [pen.fillStyle, pen.strokeStyle, pen.lineWidth] = [`rgb(${shades[heat]})`, "white", 0.09 * size * heat / 255];
      pen.fill();
      if (heat) pen.stroke();
    }
    if (clip.M > 1 && drawn.length) {
      const top = drawn.reduce((a, b) => b.y < a.y ? b : a);
      [pen.fillStyle, pen.font, pen.textAlign] = [colours.ink, "13px system-ui, sans-serif", "center"];
      pen.fillText(`person ${clip.persons[m]}`, limit(top.x, 32, w - 32), Math.max(top.y - size - 2, 13));
    }
  }
}
/** The grid of a map: left and right of its cells, the height of a person's part, the cell's width. */
function grid(canvas, clip) {
  const w = canvas.clientWidth, left = 112, right = w < 480 ? 8 : 116, top = clip.M > 1 ? 22 : 4;
  return { left, top, tall: top + V * ROW + 20, cell: (w - left - right) / clip.T };
}
function drawMap(canvas, clip, label) {
  const { left, top, tall, cell } = grid(canvas, clip), { T, truth } = clip, best = peak(clip, label, state.frame);
  canvas.style.height = `${clip.M * tall}px`;
  const [pen, w] = prepare(canvas), end = left + T * cell;
  const picture = element("canvas", { width: T, height: V }), small = picture.getContext("2d");
  pen.imageSmoothingEnabled = false;
  const write = (text, x, y, align, colour, weight = "") => {
    [pen.font, pen.textAlign, pen.fillStyle] = [`${weight} 11px system-ui, sans-serif`, align, colour];
    pen.fillText(text, x, y);
  };
  for (let m = 0; m < clip.M; m++) {
    const base = m * tall + top, at = (t, j) => (m * T + t) * V + j, cells = small.createImageData(T, V);
    order.forEach((j, row) => {
      for (let t = 0; t < T; t++) cells.data.set([...shades[clip.focus[label][at(t, j)]], 255], 4 * (row * T + t));
      const most = best.i !== undefined && best.i === at(state.frame, j);
      write(joints[j], left - 7, base + row * ROW + 10, "right", colours.ink, most ? "bold" : "");
    });
    small.putImageData(cells, 0, 0);
    pen.drawImage(picture, left, base, T * cell, V * ROW);
    let start = 0;
    for (const [part, members] of rows) {
      pen.fillStyle = "white";
      if (start) pen.fillRect(left, base + start * ROW - 1, T * cell, 2);
      if (w >= 480) write(part, end + 7, base + (start + members.length / 2) * ROW + 4, "left", colours.muted);
      start += members.length;
    }
    const marked = (t, row) => truth && t >= 0 && t < T && row >= 0 && row < V && truth[at(t, order[row])];
    pen.beginPath();
    for (let row = 0; truth && row <= V; row++) for (let t = 0; t <= T; t++) { // the edges between marked and not
      const [x, y, here] = [left + t * cell, base + row * ROW, !marked(t, row)];
      if (here === !!marked(t - 1, row)) { pen.moveTo(x, y); pen.lineTo(x, y + ROW); }
      if (here === !!marked(t, row - 1)) { pen.moveTo(x, y); pen.lineTo(x + cell, y); }
    }
    const outline = (wide, colour) => { [pen.lineWidth, pen.strokeStyle] = [wide, colour]; pen.stroke(); };
    outline(4, "white");
    outline(2, colours.truth);
    pen.beginPath();
    pen.rect(left + state.frame * cell, base, Math.max(cell, 2), V * ROW);
    outline(3.5, "white");
    outline(1.5, colours.ink);
    if (clip.M > 1) write(`person ${clip.persons[m]}`, left, base - 7, "left", colours.ink, "bold");
    write("frame", left - 7, base + V * ROW + 15, "right", colours.muted);
    const every = [1, 2, 5, 10, 20, 50, 100, 200, 500].find(n => n * cell >= 28) || 1000;
    for (let t = 0; t < T; t += every) write(t, left + (t + 0.5) * cell, base + V * ROW + 15, "center", colours.muted);
  }
}
