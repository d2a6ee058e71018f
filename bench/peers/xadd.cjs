// fastify and ioredis: one XADD a request; ioredis sends what came in one turn of the loop together.
'use strict'

const { randomUUID } = require('node:crypto')
const Redis = require('ioredis')
const { redisAt, serve } = require('./app.cjs')

const { url, path } = redisAt()
const redis = new Redis(url ?? path, { enableAutoPipelining: true, enableOfflineQueue: false })

redis.once('ready', () => serve(async (request) => {
  const id = randomUUID()
  await redis.xadd('peer:xadd', '*', 'id', id, 'source', request.params.source, 'at', Date.now(), 'body', request.body)
  return id
}, { raw: true }))
