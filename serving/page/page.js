// The page: a scan from a file, its mask from the server's signature segment_nifti, both in NiiVue.

import { Dcm2niix } from "./vendor/dcm2niix_index.js";

const { Niivue, NVImage, SHOW_RENDER } = globalThis.niivue;

// Level and width in HU.
const WINDOWS = {
  "Abdomen (40, 400)": [40, 400],
  "Liver (60, 160)": [60, 160],
  "Lung (-600, 1500)": [-600, 1500],
  "Bone (400, 1800)": [400, 1800],
  "Everything (0, 2000)": [0, 2000],
};
const AXES = { "left-right": 0, "back-front": 1, "feet-head": 2 };
const SIGNATURE = "segment_nifti";
const MM3_PER_ML = 1000;

const element = (id) => document.getElementById(id);
const settings = await (await fetch("page/settings.json")).json();
const viewer = new Niivue({
  backColor: [0, 0, 0, 1],
  isRadiologicalConvention: true,
  show3Dcrosshair: true,
  multiplanarShowRender: SHOW_RENDER.ALWAYS,
  dragAndDropEnabled: false,
  loadingText: "",
});
await viewer.attachToCanvas(element("canvas"));

const state = { scan: null, mask: null, file: null, labels: null, turn: 0 };
let calls = new AbortController(); // of the scan that is shown

function say(text, { failed = false, busy = false } = {}) {
  element("message").textContent = text;
  element("message").classList.toggle("failed", failed);
  element("busy").hidden = !busy;
}

function option(text, value) {
  const made = document.createElement("option");
  made.textContent = text;
  made.value = value;
  return made;
}

// -- Files

async function filesOf(items) {
  const files = [];
  const walk = async (entry, path) => {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      file._webkitRelativePath = path + file.name;
      files.push(file);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (some.length === 0) return;
      for (const inner of some) await walk(inner, `${path}${entry.name}/`);
    }
  };
  const dropped = [...items].filter((item) => item.kind === "file");
  const entries = dropped.map((item) => item.webkitGetAsEntry() ?? item.getAsFile());
  for (const entry of entries) {
    if (entry instanceof File) files.push(entry);
    else await walk(entry, "");
  }
  return files;
}

const isNifti = (file) => /\.nii(\.gz)?$/i.test(file.name);

async function niftiOf(files) {
  const nifti = files.filter(isNifti);
  if (nifti.length > 0) return nifti;
  say(`Reading ${files.length} DICOM files.`, { busy: true });
  const converter = new Dcm2niix();
  await converter.init();
  try {
    const made = await converter.input(files).compressionLevel(1).b("n").z("y").run();
    return made.filter(isNifti).sort((one, other) => other.size - one.size);
  } catch (error) {
    if (/exit code 2$/.test(error.message)) return []; // no DICOM found
    throw error;
  } finally {
    converter.worker.terminate();
  }
}

async function open(files) {
  const turn = nextTurn();
  clear();
  try {
    const found = await niftiOf([...files]);
    if (turn !== state.turn) return;
    if (found.length === 0) throw new Error("no NIfTI file and no DICOM series in what was given");
    element("series").replaceChildren(...found.map((file, index) => option(file.name, index)));
    element("series-line").hidden = found.length < 2;
    element("series").onchange = (event) => show(found[event.target.value]);
    show(found[0]);
  } catch (error) {
    if (turn === state.turn) fail("Could not open", error);
  }
}

function fail(what, error) {
  say(`${what}: ${error?.message ?? error}`, { failed: true });
}

// -- The scan

// Ends what is done for the scan before: the server need not begin what nobody waits for.
function nextTurn() {
  calls.abort();
  calls = new AbortController();
  return ++state.turn;
}

async function show(file) {
  const turn = nextTurn();
  clear();
  say(`Opening ${file.name}.`, { busy: true });
  state.file = file;
  try {
    const scan = await NVImage.loadFromFile({ file, name: file.name });
    if (turn !== state.turn) return;
    viewer.addVolume(scan);
    state.scan = scan;
  } catch (error) {
    console.warn(error);
    const rule = "a NIfTI file, compressed by gzip in one piece, or not at all";
    if (turn === state.turn) fail("Could not open", `${file.name} must be ${rule}`);
    return;
  }
  useLayout();
  useWindow();
  element("view").disabled = false;
  for (const [id, axis] of Object.entries(AXES)) {
    element(id).max = state.scan.dimsRAS[axis + 1] - 1;
    element(id).value = Math.floor(state.scan.dimsRAS[axis + 1] / 2);
  }
  moveTo();
  try {
    await segment(file, turn);
  } catch (error) {
    if (turn === state.turn) fail("No mask", error);
  }
}

function clear() {
  for (const volume of [...viewer.volumes]) viewer.removeVolume(volume);
  Object.assign(state, { scan: null, mask: null, file: null, labels: null });
  if (element("download").href) URL.revokeObjectURL(element("download").href);
  element("download").removeAttribute("href");
  element("download").hidden = element("organs").hidden = true;
  element("view").disabled = true;
  element("place").textContent = "";
  element("canvas").setAttribute("aria-label", "No scan yet.");
}

function useWindow() {
  const [level, width] = WINDOWS[element("window").value];
  state.scan.cal_min = level - width / 2;
  state.scan.cal_max = level + width / 2;
  viewer.updateGLVolume();
}

function useLayout() {
  const layout = element("layout").value;
  const types = {
    planes: viewer.sliceTypeMultiplanar,
    axial: viewer.sliceTypeAxial,
    coronal: viewer.sliceTypeCoronal,
    sagittal: viewer.sliceTypeSagittal,
    organs: viewer.sliceTypeRender,
  };
  viewer.setMultiplanarLayout(2);
  viewer.setSliceType(types[layout]);
  viewer.setOpacity(0, layout === "organs" && state.mask ? 0 : 1);
}

function moveTo() {
  const voxel = Object.keys(AXES).map((id) => Number(element(id).value));
  const sizes = state.scan.dimsRAS.slice(1, 4);
  viewer.scene.crosshairPos = voxel.map((index, axis) => (index + 0.5) / sizes[axis]);
  viewer.drawScene();
  viewer.createOnLocationChange();
}

viewer.onLocationChange = (location) => {
  if (!state.scan) return;
  const [scan, mask] = location.values;
  const class_ = mask ? Math.round(mask.value) : 0;
  const organ = state.labels && class_ > 0 ? `, ${state.labels[class_]}` : "";
  element("place").textContent = `${Math.round(scan.value)} HU${organ}`;
  const sizes = state.scan.dimsRAS;
  for (const [id, axis] of Object.entries(AXES)) {
    element(id).value = Math.floor(location.frac[axis] * sizes[axis + 1]);
  }
};

// -- The mask

async function predict(signature, inputs, signal) {
  const model = encodeURIComponent(element("model").value);
  const response = await fetch(`v1/models/${model}:predict`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: new Blob([`{"signature_name":"${signature}","inputs":`, ...inputs, "}"]),
    signal,
  });
  const type = response.headers.get("content-type") ?? "";
  const answer = type.includes("json") ? await response.json() : {};
  if (!response.ok || !("outputs" in answer)) {
    throw new Error(refusal(response.status, answer.error));
  }
  return answer.outputs;
}

function refusal(status, error) {
  const reasons = {
    401: "the server asks for a user and a password",
    404: "the server has no such model, or none is ready",
    413: "the scan is larger than the server takes",
    429: "the server is busy: try again later",
    502: "the server does not answer",
    503: "the server does not answer",
    504: "the server did not answer in time",
  };
  const rule = (error ?? "").split("\n")[0].replace("assertion failed: ", "");
  return [reasons[status] ?? `the server refused it (${status})`, rule].filter(Boolean).join(": ");
}

function base64Of(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

async function segment(file, turn) {
  say("The server segments the scan.", { busy: true });
  const began = performance.now();
  const { signal } = calls;
  const info = await predict("model_info", ['{"unused":0}'], signal);
  const text = new TextDecoder().decode(bytesOf((info.info_json_bytes ?? info).b64));
  const names = JSON.parse(text).class_names;
  const nifti = ['{"nifti_bytes":{"b64":"', await base64Of(file), '"}}'];
  const outputs = await predict(SIGNATURE, nifti, signal);
  if (turn !== state.turn) return;
  const bytes = bytesOf(outputs.labels_nifti_bytes.b64);
  const stem = file.name.replace(/\.nii(\.gz)?$/i, "");
  const isGzip = bytes[0] === 0x1f && bytes[1] === 0x8b;
  const mask = new File([bytes], `${stem}_mask.nii${isGzip ? ".gz" : ""}`);
  state.labels = names;
  state.mask = await NVImage.loadFromFile({ file: mask, name: mask.name });
  if (turn !== state.turn) return;
  paint(names);
  viewer.addVolume(state.mask);
  viewer.setInterpolation(false);
  useOpacity();
  useLayout();
  list(names, outputs.voxel_counts);
  element("download").href = URL.createObjectURL(mask);
  element("download").download = mask.name;
  element("download").hidden = false;
  const found = names.filter((name, index) => index > 0 && Number(outputs.voxel_counts[index]) > 0);
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  say(`Done in ${seconds} s: ${found.length} of ${names.length - 1} organs found.`);
  const label = `Scan ${file.name} with a mask of ${found.join(", ") || "no organ"}`;
  element("canvas").setAttribute("aria-label", label);
}

const colourOf = (class_) => settings.palette[class_ % settings.palette.length];

function paint(names) {
  const isShown = (class_) => element(`organ-${class_}`)?.checked ?? true;
  const colours = names.map((_, class_) => (class_ > 0 ? colourOf(class_) : [0, 0, 0]));
  state.mask.setColormapLabel({
    R: colours.map(([red]) => red),
    G: colours.map(([, green]) => green),
    B: colours.map(([, , blue]) => blue),
    A: names.map((_, class_) => (class_ > 0 && isShown(class_) ? 255 : 0)),
    I: names.map((_, class_) => class_),
    labels: names,
  });
}

function list(names, counts) {
  const spacing = state.scan.pixDimsRAS.slice(1, 4);
  const ml = spacing.reduce((volume, step) => volume * step, 1) / MM3_PER_ML;
  const rows = names.slice(1).map((name, index) => {
    const class_ = index + 1;
    const row = document.createElement("tr");
    const box = document.createElement("input");
    Object.assign(box, { type: "checkbox", id: `organ-${class_}`, checked: true });
    box.addEventListener("change", () => {
      paint(names);
      viewer.updateGLVolume();
    });
    const colour = document.createElement("span");
    colour.className = "colour";
    colour.style.backgroundColor = `rgb(${colourOf(class_).join(" ")})`;
    const label = document.createElement("label");
    label.htmlFor = box.id;
    label.append(colour, name);
    const volume = (Number(counts[class_]) * ml).toFixed(1);
    for (const content of [box, label, volume]) row.insertCell().append(content);
    return row;
  });
  element("organs").tBodies[0].replaceChildren(...rows);
  element("organs").hidden = false;
}

function useOpacity() {
  if (state.mask) viewer.setOpacity(1, Number(element("opacity").value) / 100);
}

// -- Controls

element("window").replaceChildren(...Object.keys(WINDOWS).map((name) => option(name, name)));
element("model").replaceChildren(...settings.model_names.map((name) => option(name, name)));
element("window").addEventListener("change", useWindow);
element("layout").addEventListener("change", useLayout);
element("opacity").addEventListener("input", useOpacity);
for (const id of Object.keys(AXES)) element(id).addEventListener("input", moveTo);
element("model").addEventListener("change", () => state.file && show(state.file));
element("open").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["file", "folder"]) {
  element(id).addEventListener("change", (event) => {
    if (event.target.files.length > 0) open(event.target.files);
  });
}
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  open(await filesOf(event.dataTransfer.items));
});
document.body.dataset.ready = "true";
