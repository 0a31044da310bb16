# Fragment: the targets of the bench.

# nginx and HAProxy are what we are compared with. Without root or a package mirror the bench goes on without them.
.PHONY: bench bench-smoke bench-peers
bench-peers:
	@for peer in nginx:nginx haproxy:haproxy; do \
	  program=$${peer%%:*}; package=$${peer##*:}; \
	  if ! PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v $$program >/dev/null; then \
	    echo "installing $$package, which mapigate is compared with"; \
	    $(AS_ROOT) env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$package >/dev/null \
	      || echo "could not install $$package: the bench goes on without $$program"; \
	  fi; \
	done

bench: bench-peers
	cargo bench --bench end_to_end -- $(BENCH)

bench-smoke: bench-peers
	cargo bench --bench end_to_end -- --smoke $(BENCH)

# Commands that need root run as they are when we are root.
AS_ROOT ?= $(shell [ "$$(id -u)" = 0 ] || echo sudo)
