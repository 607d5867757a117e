// BullMQ: `node bullmq.mjs fill` queues the jobs from standard input, `node bullmq.mjs work` delivers them.
import { Queue, Worker } from "bullmq";
import { batches, jobs, poster, slots, store } from "./job.mjs";

const connection = { url: store, maxRetriesPerRequest: null };

async function fill() {
  const queue = new Queue("callbacks", { connection });
  const opts = { attempts: 4, backoff: { type: "fixed", delay: 60_000 }, removeOnComplete: true };
  for (const batch of batches(await jobs(), 500)) {
    await queue.addBulk(batch.map((data) => ({ name: "post", data, opts })));
  }
  await queue.close();
}

function work() {
  const post = poster();
  const worker = new Worker("callbacks", (job) => post(job.data), { connection, concurrency: slots });
  worker.on("error", (error) => console.error(error.message));
}

await { fill, work }[process.argv[2]]();
