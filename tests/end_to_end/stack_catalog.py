"""The catalog of the stack that tests share, beside that of `examples/catalog`."""

from __future__ import annotations

CATALOG = """
---
application: v1
title: Writer
name: writer
version: "1"
authors: [UCloud]
description: Runs a script of the shell.
tool: {name: system, version: "1"}
applicationType: BATCH
allowMultiNode: true
invocation: [sh, -c, {type: var, vars: script}]
parameters:
  script: {type: text}
---
application: v1
title: Server
name: server
version: "1"
authors: [UCloud]
description: Says what it was given, and sleeps.
tool: {name: system, version: "1"}
applicationType: BATCH
allowAdditionalMounts: true
allowPublicLink: true
invocation:
  - sh
  - -c
  - 'printf "%s\\n" "$@"; sleep 300'
  - server
  - {type: var, vars: [license, link, database]}
parameters:
  license: {type: license_server, optional: true}
  link: {type: ingress, optional: true}
  database: {type: peer, optional: true}
---
application: v1
title: Pair
name: pair
version: "1"
authors: [UCloud]
description: Two replicas that sleep.
tool: {name: system, version: "1"}
applicationType: BATCH
allowMultiNode: true
invocation: [sleep, "300"]
parameters: {}
---
license: v1
id: solver
address: license.example.com
port: 27000
key: abc
provider: local
owner: {user: alice}
---
publicLink: v1
id: my-app
domain: my-app.example.com
provider: local
owner: {user: alice}
---
product: v1
name: quiet-1
category: {name: quiet, provider: local}
description: A product without logs.
freeToUse: true
cpu: 1
memoryInGigs: 1
support:
  native: {enabled: true}
"""
