// graphile-worker: `node graphile.mjs fill` queues the jobs from standard input, `node graphile.mjs work` delivers them.
import { makeWorkerUtils, run } from "graphile-worker";
import { batches, jobs, poster, slots, store } from "./job.mjs";

async function fill() {
  const utils = await makeWorkerUtils({ connectionString: store });
  await utils.migrate();
  for (const batch of batches(await jobs(), 1000)) {
    await utils.addJobs(batch.map((payload) => ({ identifier: "post", payload, maxAttempts: 4 })));
  }
  await utils.release();
}

async function work() {
  const post = poster();
  const preset = { worker: { localQueue: { size: 200 }, completeJobBatchDelay: 0 } };
  await run({ connectionString: store, concurrency: slots, preset, taskList: { post } });
}

await { fill, work }[process.argv[2]]();
