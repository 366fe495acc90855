# What scripts/test and scripts/demo share: Debian packages and the virtual environment.
# To be sourced by bash from the repository's root.

# Modules are compiled once, as by any installation, and not by every process that starts.
unset PYTHONDONTWRITEBYTECODE

say() { printf '\n== %s\n' "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "root or sudo is needed to run: $*"
  fi
}

apt_quiet() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"; }

missing_packages() {
  local name
  for name in "$@"; do
    dpkg-query -W -f '${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed || echo "$name"
  done
}

# install PACKAGE...: those of them that are not there yet.
install() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  if [ "${#missing[@]}" -eq 0 ]; then
    say "Debian packages: all there ($*)"
    return
  fi
  command -v apt-get >/dev/null || fail "this is no Debian; install by hand: ${missing[*]}"
  say "Debian packages: installing ${missing[*]}"
  apt_quiet update
  apt_quiet install --no-install-recommends -y "${missing[@]}" >/dev/null
}

# The interpreter's own headers and venv module, which Debian packs apart.
complete_python() {
  python3 -c 'import ensurepip, os, sysconfig, venv
raise SystemExit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null ||
    install python3-venv python3-dev
}

find_python() {
  command -v python3 >/dev/null || install python3 python3-venv python3-dev
  python3 -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' ||
    fail "Python 3.11 or newer is needed as python3; this one is $(python3 --version 2>&1)"
  complete_python
}

# environment EXTRAS: a virtual environment in .venv, made again when pyproject.toml changes.
environment() {
  local extras=$1 key
  find_python
  key="$extras $(python3 --version) $PWD $(sha256sum <pyproject.toml)"
  if [ "$(cat .venv/made-for 2>/dev/null)" = "$key" ]; then
    say "Virtual environment: .venv is up to date"
    return
  fi
  say "Virtual environment: installing naiad${extras} into .venv"
  [ -x .venv/bin/python ] && [ -f .venv/made-for ] || python3 -m venv --clear .venv
  rm -f .venv/made-for
  # By a path alone: the finder that is made else costs every start of Python 11 ms.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --config-settings editable_mode=compat --editable ".${extras}" ||
    fail "pip could not install naiad's dependencies"
  printf '%s' "$key" >.venv/made-for
}
