// fastify and BullMQ: one job a request, with the parsed body as its data.
'use strict'

const { Queue } = require('bullmq')
const { redisAt, serve } = require('./app.cjs')

const queue = new Queue('peer', {
  connection: { ...redisAt(), enableOfflineQueue: false },
  defaultJobOptions: { removeOnComplete: true, removeOnFail: 1000 }
})

queue.waitUntilReady().then(() => serve(async (request) => {
  const job = await queue.add(request.params.source, request.body)
  return job.id
}, { raw: false }))
