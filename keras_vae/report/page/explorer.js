// The latent explorer: one z, and everything that moves it or shows it. The networks are those of network.js.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const model = openModel(data);
const [height, width, channels] = data.shape;
const element = (id) => document.getElementById(id);
const COLOURS = "#1f77b4 #ff7f0e #2ca02c #d62728 #9467bd #a9705f #e377c2 #7f7f7f #bcbd22 #17becf".split(" ");

// What the page shows: the code, the class of a conditional model, the image decoded from them, and the milliseconds that
// each frame took.
const explorer = { model, z: new Float32Array(data.latentDim), label: 0, image: null, frames: [] };
let scheduled = false; // whether a frame is due
let encodes = false; // whether that frame begins with the input

function show(z) {
  if (z) explorer.z = z;
  encodes = !z;
  if (!scheduled) requestAnimationFrame(frame);
  scheduled = true;
}

function frame() {
  scheduled = false;
  const start = performance.now();
  if (encodes) explorer.z = model.encode(readInput(), explorer.label);
  explorer.image = model.decode(explorer.z, explorer.label);
  paint(element("output"), explorer.image);
  showSliders();
  if (data.plane) paintPlane();
  explorer.frames.push(performance.now() - start);
  const recent = explorer.frames.slice(10).slice(-20).sort((a, b) => a - b); // the first are compiled as they run
  if (recent.length) element("timing").textContent = `${recent[recent.length >> 1].toFixed(1)} ms a frame`;
}

function className(label) {
  const name = data.names && data.names[label];
  return name === undefined || name === null || name === String(label) ? `class ${label}` : name;
}

// Images

function paint(canvas, pixels) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let p = 0; p < width * height; p++) {
    for (let c = 0; c < 3; c++) image.data[4 * p + c] = Math.round(255 * pixels[p * channels + Math.min(c, channels - 1)]);
    image.data[4 * p + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function readInput() {
  const bytes = element("input").getContext("2d").getImageData(0, 0, width, height).data;
  const pixels = new Float32Array(width * height * channels);
  for (let p = 0; p < width * height; p++) {
    const grey = (bytes[4 * p] + bytes[4 * p + 1] + bytes[4 * p + 2]) / 3;
    for (let c = 0; c < channels; c++) pixels[p * channels + c] = (channels === 1 ? grey : bytes[4 * p + c]) / 255;
  }
  return data.binary ? pixels.map((x) => (x >= 0.5 ? 1 : 0)) : pixels;
}

// The input: chosen, drawn or opened

const bytes = decodeBase64(data.examples, Uint8Array);
const size = width * height * channels;
const examples = Array.from({ length: bytes.length / size }, (_, i) => {
  const pixels = Float32Array.from(bytes.subarray(i * size, (i + 1) * size), (byte) => byte / 255);
  return { pixels, label: data.labels && data.labels[i], name: data.labels ? `${className(data.labels[i])}, image ${i + 1}` : `image ${i + 1}` };
});
let drawn = false; // whether the input is the user's own drawing, to which the next line is added

function setInput(pixels, label) {
  drawn = false;
  setLabel(label);
  paint(element("input"), pixels);
  show();
}

function clearInput() {
  setInput(new Float32Array(size));
  drawn = true;
}

function position(event, canvas) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

function stroke(from, to) {
  const context = element("input").getContext("2d");
  context.strokeStyle = "#fff";
  context.lineWidth = 0.08 * height;
  context.lineCap = "round";
  context.beginPath();
  context.moveTo(from[0] * width, from[1] * height);
  context.lineTo(to[0] * width, to[1] * height);
  context.stroke();
  show();
}

async function openFile(file) {
  try {
    const bitmap = await createImageBitmap(file, { resizeWidth: width, resizeHeight: height, resizeQuality: "high" });
    element("input").getContext("2d").drawImage(bitmap, 0, 0);
    drawn = false;
    show();
    say(`Encoded ${file.name}.`);
  } catch {
    say("That is not an image that this browser can read.");
  }
}

function listenToInput() {
  const input = element("input");
  let last = null;
  input.addEventListener("pointerdown", (event) => {
    if (!drawn) clearInput();
    input.setPointerCapture(event.pointerId);
    last = position(event, input);
    stroke(last, last);
  });
  input.addEventListener("pointermove", (event) => {
    if (!last) return;
    const here = position(event, input);
    stroke(last, here);
    last = here;
  });
  for (const end of ["pointerup", "pointercancel"]) input.addEventListener(end, () => (last = null));
  for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
    input.addEventListener(name, (event) => {
      event.preventDefault();
      input.classList.toggle("over", over);
      if (name === "drop" && event.dataTransfer.files.length) openFile(event.dataTransfer.files[0]);
    });
  element("file").addEventListener("change", (event) => event.target.files.length && openFile(event.target.files[0]));
  element("clear").addEventListener("click", clearInput);
}

function listExamples() {
  for (const [index, example] of examples.entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Encode ${example.name}`);
    const canvas = document.createElement("canvas");
    paint(canvas, example.pixels);
    button.append(canvas);
    button.addEventListener("click", () => {
      setInput(example.pixels, example.label);
      say(`Encoded ${example.name}.`);
    });
    element("examples").append(button);
    for (const id of ["first", "last"]) element(id).append(new Option(example.name, index));
  }
  element("last").selectedIndex = Math.min(1, examples.length - 1);
}

// z and the class: sliders, the plane, draws, morphing

function setLabel(label) {
  if (!data.classes || label === undefined) return;
  explorer.label = label;
  element("label").value = label;
}

function setZ(values) {
  const z = explorer.z.slice();
  for (const [dim, value] of Object.entries(values)) z[dim] = value;
  show(z);
}

function listSliders() {
  for (const dim of data.dims) {
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", id: `z${dim}`, min: -data.reach[dim], max: data.reach[dim], step: 0.01 });
    const label = document.createElement("label");
    label.htmlFor = slider.id;
    label.textContent = `z[${dim}]`;
    const value = document.createElement("output");
    value.htmlFor = slider.id;
    slider.addEventListener("input", () => setZ({ [dim]: Number(slider.value) }));
    slider.addEventListener("change", sayZ);
    element("sliders").append(label, slider, value);
  }
}

function showSliders() {
  for (const dim of data.dims) {
    const slider = element(`z${dim}`);
    slider.value = explorer.z[dim];
    slider.nextSibling.value = explorer.z[dim].toFixed(2).replace("-", "\u2212");
  }
}

function morph() {
  const ends = ["first", "last"].map((id) => examples[element(id).value]);
  const [first, last] = ends.map((example) => model.encode(example.pixels, example.label));
  const share = Number(element("morph").value);
  const nearest = ends[share < 0.5 ? 0 : 1];
  paint(element("input"), nearest.pixels);
  setLabel(nearest.label);
  drawn = false;
  show(first.map((value, dim) => (1 - share) * value + share * last[dim]));
}

const radius = Math.max(...data.reach); // of the plane
let points = null; // the plane without the marker

function planePoint(canvas, z) {
  return [(z[0] / radius / 2 + 0.5) * canvas.width, (0.5 - z[1] / radius / 2) * canvas.height];
}

function paintPoints() {
  const plane = element("plane");
  plane.width = plane.height = Math.max(1, Math.round(plane.clientWidth * devicePixelRatio)); // 0 while hidden
  points = document.createElement("canvas");
  points.width = points.height = plane.width;
  const context = points.getContext("2d");
  const style = getComputedStyle(document.body);
  context.strokeStyle = style.getPropertyValue("--line");
  context.strokeRect(plane.width / 2, -1, 0, plane.height + 2);
  context.strokeRect(-1, plane.height / 2, plane.width + 2, 0);
  const codes = decodeBase64(data.plane.points, Float32Array);
  context.globalAlpha = 0.7;
  for (let i = 0; i < codes.length / 2; i++) {
    context.fillStyle = data.plane.labels ? COLOURS[data.plane.labels[i]] : style.getPropertyValue("--soft");
    context.beginPath();
    context.arc(...planePoint(plane, codes.subarray(2 * i, 2 * i + 2)), 1.6 * devicePixelRatio, 0, 2 * Math.PI);
    context.fill();
  }
}

function paintPlane() {
  const plane = element("plane");
  if (!points) paintPoints();
  const context = plane.getContext("2d");
  context.clearRect(0, 0, plane.width, plane.height);
  context.drawImage(points, 0, 0);
  for (const [colour, line] of [["#fff", 5], ["#000", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = line * devicePixelRatio;
    context.beginPath();
    context.arc(...planePoint(plane, explorer.z), 8 * devicePixelRatio, 0, 2 * Math.PI);
    context.stroke();
  }
}

function listenToPlane() {
  const plane = element("plane");
  const move = (event) => {
    const [x, y] = position(event, plane);
    setZ({ 0: (2 * x - 1) * radius, 1: (1 - 2 * y) * radius });
  };
  plane.addEventListener("pointerdown", (event) => {
    plane.setPointerCapture(event.pointerId);
    move(event);
  });
  plane.addEventListener("pointermove", (event) => plane.hasPointerCapture(event.pointerId) && move(event));
  plane.addEventListener("keydown", (event) => {
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] || [0, 0];
    if (!x && !y) return;
    event.preventDefault();
    const step = radius * (event.shiftKey ? 0.1 : 0.02);
    setZ({ 0: explorer.z[0] + x * step, 1: explorer.z[1] + y * step });
  });
  plane.addEventListener("keyup", sayZ);
  plane.addEventListener("pointerup", sayZ);
  const repaint = () => {
    points = null;
    show(explorer.z);
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  addEventListener("resize", repaint);
  for (const [index, name] of [...new Set(data.labels || [])].sort((a, b) => a - b).entries()) {
    const entry = document.createElement("span");
    const dot = document.createElement("i");
    dot.style.background = COLOURS[index];
    entry.append(dot, data.names && data.names[name] ? data.names[name] : String(name));
    if (data.plane.labels) element("classes").append(entry);
  }
}

// What a screen reader says

function say(text) {
  element("status").textContent = text;
}

function sayZ() {
  say(data.dims.map((dim) => `z[${dim}] = ${explorer.z[dim].toFixed(2)}`).join(", ") + ", decoded.");
}

element("app").hidden = false;
listExamples();
listSliders();
listenToInput();
if (data.plane) listenToPlane();
for (const id of ["morph", "first", "last"]) element(id).addEventListener("input", morph);
element("origin").addEventListener("click", () => show(new Float32Array(data.latentDim)));
if (data.draws) {
  const draws = decodeBase64(data.draws, Float32Array);
  element("draw").addEventListener("click", () => {
    const first = Math.floor((Math.random() * draws.length) / data.latentDim) * data.latentDim;
    show(draws.slice(first, first + data.latentDim));
    say("Drew z from the prior and decoded it.");
  });
}
if (data.classes) {
  for (let label = 0; label < data.classes; label++) element("label").append(new Option(data.names && data.names[label] ? data.names[label] : label, label));
  element("label").addEventListener("input", (event) => {
    setLabel(Number(event.target.value));
    show(explorer.z);
    say(`Decoded z as ${className(explorer.label)}.`);
  });
}
setInput(examples[0].pixels, examples[0].label);
