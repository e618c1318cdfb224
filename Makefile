# What a person types. CMake does the work (CMakePresets.json); each target first installs what it needs and lacks.
#
#   make           the library and the command, optimised, into build/
#   make demo      ... and run the main job, a JSON document store, on it
#   make test      every test, in a release, an address+undefined and a thread sanitizer build
#   make compare   Winnow beside Go, PyPy, CPython, libgc and malloc; QUICK=1: within five minutes
#   make install   into /usr/local, or PREFIX=..., DESTDIR=...
#   make format    clang-format over all C sources
#   make clean     remove the build folders

PREFIX ?= /usr/local

release:
	@scripts/setup.sh build
	@test -f build/build.ninja || cmake --preset release
	cmake --build --preset release

demo:
	@scripts/setup.sh build demo
	@$(MAKE) --no-print-directory release
	build/bin/winnow bench store

test:
	@scripts/setup.sh build demo test
	@scripts/test.sh

# ARGS="--workloads lru,biglive", ARGS="--revision v1 --revision v2"; see build/compare-venv/bin/python bench/compare --help
compare:
	@scripts/setup.sh build demo compare
	@$(MAKE) --no-print-directory release
	@scripts/compare-venv.sh build/compare-venv
	build/compare-venv/bin/python bench/compare $(if $(QUICK),--quick) $(ARGS)

install: release
	cmake --install build --prefix $(PREFIX)

format:
	@scripts/setup.sh format
	git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf build build-debug build-asan build-tsan

.PHONY: release demo test compare install format clean
