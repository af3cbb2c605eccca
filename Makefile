# Every entry point that a person types. `make help` lists them.
PNPM_VERSION := 12.21.0
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)
HAVEN := node services/launcher/src/main.ts

.DEFAULT_GOAL := help
.PHONY: help up down reset logs status doctor settings test lint check gen bench bench-gate images compose-up compose-down version

help: ## list the entry points
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: node_modules/.haven-generated ## start Haven on this machine; returns when it is healthy
	@$(HAVEN) up

down: node_modules/.haven-generated ## stop what `make up` started
	@$(HAVEN) down

reset: node_modules/.haven-generated ## delete this installation (asks first)
	@$(HAVEN) reset

logs: node_modules/.haven-generated ## print the end of the logs; NAME=registry: of one service or process
	@$(HAVEN) logs $(if $(filter command,$(firstword $(origin NAME))),$(NAME)) # from the command line only: some shells export a NAME of their own

status: node_modules/.haven-generated ## what runs, and is it ready
	@$(HAVEN) status

doctor: node_modules/.haven-generated ## look at what Haven stands on and what clients see, and say what to do
	@$(HAVEN) doctor

settings: node_modules/.haven-generated ## print every setting of every service, with its default and meaning
	@$(HAVEN) settings

test: node_modules/.haven-generated ## run the tests that need no privilege
	@pnpm test

check: node_modules/.haven-generated ## check the types
	@pnpm run check

lint: node_modules/.haven-generated ## lint, format check, dead code
	@pnpm run lint

gen: node_modules/.haven-installed ## generate types, validators, the database client and indexes again
	@pnpm run gen
	@touch node_modules/.haven-generated

bench: node_modules/.haven-generated ## measure beside peers, all rows (about 40 min); ARGS='--rounds 3 --only P5'
	@node test/perf/main.ts $(ARGS)

bench-gate: node_modules/.haven-generated ## the short measurement of CI; fails when a ratio fell
	@node test/perf/main.ts --tier gate $(ARGS)

# For each of the variables see deploy/images/bake.hcl.
images: ## build the container images; HAVEN_IMAGES, HAVEN_VERSION, BASE, ARGS='--push --set *.platform=linux/amd64,linux/arm64'
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) REVISION=$$(git rev-parse HEAD) docker buildx bake -f deploy/images/bake.hcl $(or $(ARGS),--load)

compose-up: $(if $(HAVEN_IMAGES),,images) ## start every service in a container of its own; HAVEN_IMAGES=registry.example/haven: not built here
	@deploy/compose/up

compose-down: ## stop what `make compose-up` started; ARGS=--volumes: and delete its data
	@cd deploy/compose && docker compose down $(ARGS)

# The version stands in package.json, and as the tag of the images where only a text can stand.
VERSIONED := package.json deploy/README.md $(addprefix deploy/,images/bake.hcl compose/compose.yaml kubernetes/base/kustomization.yaml kubernetes/README.md)
VERSION = $(shell sed -n 's/^  "version": "\(.*\)",$$/\1/p' package.json)
version: ## print the version, which is the tag of the images; TO=0.2.0: set it, wherever it stands
	@$(if $(TO),sed -i -E 's/("version": "|default = "|HAVEN_VERSION(:-|=)|newTag: (&version )?|<service>:)$(subst .,\.,$(VERSION))\b/\1$(TO)/g' $(VERSIONED),echo $(VERSION))

node_modules/.haven-installed: package.json pnpm-lock.yaml pnpm-workspace.yaml
	@echo "  installing packages …"
	@npx --yes pnpm@$(PNPM_VERSION) install --frozen-lockfile --reporter=silent
	@touch $@

node_modules/.haven-generated: node_modules/.haven-installed services/jobservice/src/jobs $(shell find proto/openapi proto/haven proto/src services/lib/db/prisma services/jobservice/src/jobs services/jobservice/src/gen.ts -type f -not -path '*/gen/*' 2>/dev/null)
	@echo "  generating types and the database client …"
	@pnpm run gen > node_modules/.haven-gen.log 2>&1 || (cat node_modules/.haven-gen.log; exit 1)
	@touch $@
