// A toft worker in JavaScript, written from docs/reference/wire.md alone: no capability, every buffer inline.
"use strict";
const net = require("node:net");

const PROTOCOL = 1;
const MAX_HEADER = 33554432;
const MAX_TAIL = 268435456;

class CallError extends Error {
  constructor(kind, code, category, message, details = {}) {
    super(message);
    Object.assign(this, { kind, code, category, details });
  }
}
const cancelled = (reason) => new CallError("CancelledError", "call.cancelled", "cancelled", reason);

// -- values ---------------------------------------------------------------------------------------------------

function decode(tree, buffers) {
  if (Array.isArray(tree)) return tree.map((item) => decode(item, buffers));
  if (tree === null || typeof tree !== "object") return tree;
  switch (tree.$) {
    case undefined:
      return Object.fromEntries(Object.entries(tree).map(([key, item]) => [key, decode(item, buffers)]));
    case "bytes":
    case "bytearray":
      return buffers[tree.b];
    case "str":
      return buffers[tree.b].toString("utf8");
    case "float":
      return { nan: NaN, inf: Infinity, "-inf": -Infinity }[tree.v];
    case "int":
      return BigInt(tree.v);
    case "tuple":
      return decode(tree.v, buffers);
    case "set":
    case "frozenset":
      return new Set(decode(tree.v, buffers));
    case "dict":
      return new Map(tree.v.map(([key, item]) => [decode(key, buffers), decode(item, buffers)]));
    default:
      throw new CallError("InputError", "value.unsupported", "user_input", `this worker has no ${tree.$}`);
  }
}

function encode(value, buffers, path = "$") {
  if (value === undefined || value === null) return null;
  if (typeof value === "bigint") return { $: "int", v: value.toString() };
  if (typeof value === "number") {
    if (Number.isFinite(value)) return value;
    return { $: "float", v: Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf" };
  }
  if (typeof value === "string" || typeof value === "boolean") return value;
  if (Buffer.isBuffer(value)) return { $: "bytes", b: buffers.push(value) - 1 };
  if (value instanceof Set) return { $: "set", v: [...value].map((item) => encode(item, buffers, path)) };
  if (value instanceof Map)
    return { $: "dict", v: [...value].map(([k, v]) => [encode(k, buffers, path), encode(v, buffers, path)]) };
  if (Array.isArray(value)) return value.map((item, at) => encode(item, buffers, `${path}[${at}]`));
  if (typeof value === "object" && !("$" in value))
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, encode(v, buffers, `${path}.${k}`)]));
  throw new CallError("FatalError", "result.unencodable", "fatal", `${path}: cannot cross`, { path });
}

// -- frames ---------------------------------------------------------------------------------------------------

const socket = new net.Socket({ fd: Number(process.argv[process.argv.length - 1]), readable: true, writable: true });
let received = Buffer.alloc(0);

function send(header, buffers = []) {
  if (buffers.length > 0) header.push(buffers.map((buffer) => buffer.length));
  const text = Buffer.from(JSON.stringify(header), "utf8");
  const tail = Buffer.concat(buffers);
  const prefix = Buffer.alloc(8);
  prefix.writeUInt32BE(text.length, 0);
  prefix.writeUInt32BE(tail.length, 4);
  socket.write(Buffer.concat([prefix, text, tail]));
}

function breach(reason) {
  send(["protocol_error", 0, reason]);
  socket.end(() => process.exit(3));
}

socket.on("data", (data) => {
  received = Buffer.concat([received, data]);
  while (received.length >= 8) {
    const head = received.readUInt32BE(0);
    const tail = received.readUInt32BE(4);
    if (head > MAX_HEADER || tail > MAX_TAIL) return breach("a frame is too long");
    if (received.length < 8 + head + tail) return;
    const end = 8 + head + tail;
    let header;
    try {
      header = JSON.parse(received.toString("utf8", 8, 8 + head));
    } catch (error) {
      return breach(`a header is not JSON: ${error.message}`);
    }
    const rest = received.subarray(8 + head, end);
    received = received.subarray(end);
    receive(header, rest);
  }
});
socket.on("end", () => process.exit(0));
socket.on("error", () => process.exit(0));

// -- the protocol ---------------------------------------------------------------------------------------------

const calls = new Map();
let greeted = false;

function receive(header, tail) {
  const [kind, number] = header;
  if (!greeted) {
    if (kind === "welcome" && header[2].protocol === PROTOCOL) greeted = true;
    else breach(`this worker speaks protocol ${PROTOCOL}`);
  } else if (kind === "request") {
    run(header, tail);
  } else if (kind === "cancel") {
    const call = calls.get(number);
    if (call) {
      call.reason = header[2];
      call.wake();
    }
  } else if (kind === "credit") {
    const call = calls.get(number);
    if (call) {
      call.credit += header[2];
      call.wake();
    }
  } else if (kind === "ping") {
    const running = [...calls.values()];
    const op = running.length > 0 ? running[0].op : "";
    send(["pong", number, { op, quiet_s: 0, calls: [...calls.keys()], waiting: 0 }]);
  } else {
    breach(`unknown kind ${kind}`);
  }
}

async function run([, number, op, window, tree, places = []], tail) {
  let at = 0;
  const buffers = places.map((size) => tail.subarray(at, (at += size)));
  const call = { op, credit: window, reason: null, wake() {} };
  call.news = () => new Promise((resolve) => (call.wake = resolve));
  call.progress = (fraction, message) => send(["progress", number, fraction, message]);
  call.check = () => {
    if (call.reason !== null) throw cancelled(call.reason);
  };
  call.chunk = async (value) => {
    while (call.credit <= 0 && call.reason === null) await call.news();
    call.check();
    call.credit -= 1;
    const out = [];
    send(["chunk", number, encode(value, out)], out);
  };
  calls.set(number, call);
  try {
    const out = [];
    const value = encode(await perform(op, decode(tree, buffers), call), out);
    send(["result", number, value], out);
  } catch (error) {
    const { kind = "PluginError", code = "plugin.exception", category = "fatal", details = {} } = error;
    send(["error", number, { kind, code, category, message: error.message, details, trace: error.stack }]);
  }
  calls.delete(number);
}

async function perform(op, given, call) {
  if (op === "load") return { name: "javascript", main_thread: false, concurrency: null };
  if (op === "initialize" || op === "cleanup") return null;
  const action = (op === "call" || op === "stream") && actions[given.action];
  if (!action) throw new CallError("FatalError", "worker.op_unknown", "fatal", `no ${op} here`);
  return await action(given.arguments, call);
}

// -- the plugin -----------------------------------------------------------------------------------------------

const actions = {
  echo: ({ value }) => value,
  reversed: ({ data }) => Buffer.from(data).reverse(),
  say: ({ text }) => (process.stdout.write(`${text}\n`), null),
  async count({ to }, call) {
    for (let number = 0; number < to; number += 1) await call.chunk(number);
  },
  async sleep(_, call) {
    call.progress(0.5, "asleep");
    while (call.reason === null) await call.news();
    call.check();
  },
  fail: () => {
    throw new CallError("InputError", "plugin.input", "user_input", "bad page", { fields: { page: "at most 3" } });
  },
};

send(["hello", 0, { protocol: Number(process.env.SPEAK || PROTOCOL), language: "javascript",
  version: process.versions.node, sdk: "", pid: process.pid, capabilities: [] }]);
