// A receiver on fastify: token, body cap, an answer once `keep` has kept the body. Prints its port.
'use strict'

const { timingSafeEqual } = require('node:crypto')
const fastify = require('fastify')

const TOKEN = Buffer.from(process.env.HOOK_TOKENS)
const MOST_BYTES = 20 * 1024 * 1024

function isOurs (shown) {
  const given = Buffer.from(shown)
  return given.length === TOKEN.length && timingSafeEqual(given, TOKEN)
}

/** Where the bench's Redis is, as ioredis takes it: a socket's path, or a URL. */
exports.redisAt = function () {
  const url = process.env.REDIS_URL
  return url.startsWith('unix://') ? { path: new URL(url).pathname } : { url }
}

/** Serve; *keep* takes a request and resolves to the id under which its body is kept. */
exports.serve = async function (keep, { raw }) {
  const app = fastify({ bodyLimit: MOST_BYTES })
  if (raw) {
    app.removeAllContentTypeParsers()
    app.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body, done) => done(null, body))
  }
  app.post('/hooks/:source/:token', {
    schema: { response: { 202: { type: 'object', properties: { id: { type: 'string' } } } } },
    onRequest: (request, reply, done) => {
      if (isOurs(request.params.token)) done()
      else reply.code(401).send()
    }
  }, async (request, reply) => {
    try {
      const id = await keep(request)
      return reply.code(202).send({ id })
    } catch {
      return reply.code(503).send()
    }
  })
  await app.listen({ host: '127.0.0.1', port: 0, backlog: 512 })
  console.log(app.server.address().port)
}
