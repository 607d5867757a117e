// What every peer on Node does with a job: as job.py.
import { createCipheriv } from "node:crypto";
import { text } from "node:stream/consumers";
import { Pool } from "undici";

export const store = process.env.BENCH_STORE;
export const slots = Number(process.env.BENCH_SLOTS ?? 50);
const KEY = "0f1e2d3c4b5a6978";
const IV = "A1b2C3d4E5f6G7h8";
const headers = {
  "Content-Type": "application/json",
  Authorization: "Bearer bench-token-of-thirty-two-letters",
};
const TIMEOUT_MS = 10_000;

function body({ event, uid }) {
  const cipher = createCipheriv("aes-128-cbc", KEY, IV);
  const data = cipher.update(JSON.stringify(event), "utf8", "base64") + cipher.final("base64");
  return JSON.stringify({ order_no: event.order_no, data, time: event.time, uid });
}

export function poster() {
  const pool = new Pool(process.env.BENCH_URL, {
    connections: slots,
    headersTimeout: TIMEOUT_MS,
    bodyTimeout: TIMEOUT_MS,
  });
  return async (job) => {
    const answer = await pool.request({ path: job.path, method: "POST", headers, body: body(job) });
    await answer.body.dump();
    if (answer.statusCode !== 200) throw new Error(`answered ${answer.statusCode}`);
  };
}

export async function jobs() {
  const lines = await text(process.stdin);
  return lines.trimEnd().split("\n").map((line) => JSON.parse(line));
}

export function batches(all, size) {
  return Array.from({ length: Math.ceil(all.length / size) }, (_, n) => all.slice(n * size, (n + 1) * size));
}
