#!/bin/sh
# Brings a fresh machine to where storeops runs: python, virtual environment, locked packages, system
# programs, demonstration photographs. Does nothing when all is there. All chatter goes to stderr.
#
#   scripts/setup.sh runtime            what `storeops up` needs
#   scripts/setup.sh runtime photos     and the demonstration's photographs
#   scripts/setup.sh dev                what lint, test, bench and soak need
set -eu
cd "$(dirname "$0")/.."
exec 1>&2

VENV=.venv
PYTHON_IN_VENV=$VENV/bin/python
PHOTOS=var/photos
APT_UPDATED=no

say() { printf 'setup: %s\n' "$*"; }
fail() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
digest() { cat "$@" | { sha256sum 2>/dev/null || shasum -a 256; } | cut -c1-32; }

# --- system packages -------------------------------------------------------------------------------------

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif has sudo && { sudo -n true 2>/dev/null || { [ -t 0 ] && [ -z "${CI:-}" ]; }; }; then sudo "$@"
  else return 1
  fi
}

apt_install() { # apt_install PACKAGE... ; false when it cannot be done here
  has apt-get || return 1
  if [ "$APT_UPDATED" = no ]; then
    say "apt-get update"
    as_root apt-get -qq update || return 1
    APT_UPDATED=yes
  fi
  say "apt-get install $*"
  # storeops starts a broker of its own; Debian's package would start another one as a system service.
  policy=/usr/sbin/policy-rc.d
  made_policy=no
  if [ ! -e "$policy" ] && as_root sh -c "printf '#!/bin/sh\nexit 101\n' > $policy && chmod 755 $policy"; then
    made_policy=yes
  fi
  status=0
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" || status=1
  if [ "$made_policy" = yes ]; then as_root rm -f "$policy"; fi
  return $status
}

system_programs() {
  has mosquitto || apt_install mosquitto ||
    say "mosquitto is missing and could not be installed (apt-get install mosquitto): going on with the built-in development broker"
  [ "$1" = dev ] || return 0
  has mosquitto_pub || apt_install mosquitto-clients ||
    say "mosquitto_pub is missing (apt-get install mosquitto-clients): the foreign client's test will be skipped"
  has hledger || apt_install hledger ||
    say "hledger is missing (apt-get install hledger): the test of the ledger's export will be skipped"
  if ! has chromium && ! has chromium-browser && ! has google-chrome; then
    if grep -qi '^ID=ubuntu' /etc/os-release 2>/dev/null || ! apt_install chromium; then
      say "chromium is missing (Debian: apt-get install chromium): the browser tests will be skipped"
    fi
  fi
}

# --- python and the virtual environment ------------------------------------------------------------------

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
  for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate"; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

make_venv() {
  if [ -x $PYTHON_IN_VENV ] && fits $PYTHON_IN_VENV && $PYTHON_IN_VENV -m pip --version >/dev/null 2>&1; then return 0; fi
  if [ -e $VENV ]; then
    say "$VENV is incomplete or of another Python: making it anew"
    rm -rf $VENV
  fi
  python=$(find_python) || {
    if has uv; then python='>=3.11,<3.14'
    else
      apt_install python3 python3-venv || true
      python=$(find_python) || fail "no Python 3.11, 3.12 or 3.13 here: install one (or set PYTHON=/path/to/python3), then run this again"
    fi
  }
  if has uv; then
    say "virtual environment by uv"
    uv venv --quiet --seed --python "$python" $VENV
    return 0
  fi
  say "virtual environment by $python"
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then # Debian keeps these in a package of their own
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    apt_install "python$version-venv" || fail "$python has no venv: apt-get install python$version-venv, then run this again"
  fi
  "$python" -m venv $VENV
}

install_locked() { # install_locked LOCKFILE
  say "packages of $1 (the first time takes minutes)"
  if has uv; then
    uv pip install --quiet --python $PYTHON_IN_VENV --require-hashes -r "$1"
    uv pip install --quiet --python $PYTHON_IN_VENV --no-deps --no-build-isolation -e .
  else
    $PYTHON_IN_VENV -m pip install --quiet --disable-pip-version-check --require-hashes -r "$1"
    $PYTHON_IN_VENV -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
  fi
}

packages() { # packages runtime|dev
  wanted=$(digest requirements/lock.txt requirements/lock-dev.txt pyproject.toml)
  for done_for in "$1" dev; do # the development lock holds the whole runtime lock
    if [ "$(cat $VENV/.installed-"$done_for" 2>/dev/null)" = "$wanted" ] && [ -x $VENV/bin/storeops ]; then return 0; fi
  done
  make_venv
  rm -f $VENV/.installed-*
  if [ "$1" = dev ]; then install_locked requirements/lock-dev.txt; else install_locked requirements/lock.txt; fi
  printf '%s\n' "$wanted" > $VENV/.installed-"$1"
}

photos() {
  wanted=$(digest requirements/photos.txt)
  [ "$(cat $PHOTOS/.fetched 2>/dev/null)" != "$wanted" ] || return 0
  say "photographs for the demonstration"
  mkdir -p $PHOTOS
  if $PYTHON_IN_VENV -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --require-hashes -r requirements/photos.txt -d $PHOTOS
  then printf '%s\n' "$wanted" > $PHOTOS/.fetched
  else say "the photographs could not be fetched: run this again with a network, or use --photos DIR"
  fi
}

# --- main ------------------------------------------------------------------------------------------------

mkdir -p var
if has flock; then # two makes at once take turns
  exec 9> var/.setup.lock
  flock 9
fi
packages "$1"
system_programs "$1"
if [ "${2:-}" = photos ]; then photos; fi
