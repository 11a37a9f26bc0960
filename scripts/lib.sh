# shellcheck shell=bash
# Sourced by the scripts beside it and by .ci/run: finds a Python, makes a virtual environment once, installs once.

# Read by the scripts that source this file.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {  # MESSAGE: end with the exit code of a wrong call or an unfit machine
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 2
}

die_without_python() {  # VERSION-or-empty
    die "found no Python ${1:-3.11 or newer}: looked in PATH and among pyenv's versions"
}

# Leave in $version what --python X.Y says, nothing without it, and in $arguments everything else.
take_version() {  # ARGUMENT...
    version=
    arguments=()
    while (($#)); do
        case $1 in
            --python=*) version=${1#*=} ;;
            --python) version=${2:-none}; shift $(($# > 1)) ;;
            *) arguments+=("$1") ;;
        esac
        shift
    done
    [[ -z $version || $version =~ ^[0-9]+\.[0-9]+$ ]] || die "--python wants a version such as 3.13"
}

# Runs, and is new enough? A version manager's shim may lie in PATH and still run nothing.
runs_as() {  # PYTHON [X.Y]
    "$1" - "${2:-}" >/dev/null 2>&1 <<'PY'
import sys
version = sys.argv[1]
sys.exit(sys.version_info < (3, 11) or version not in ("", "%d.%d" % sys.version_info[:2]))
PY
}

# Print an interpreter: of version X.Y when given, else python3, else the newest found. Fails when there is none.
find_python() {  # [X.Y]
    local wanted=${1:-} home=~ name candidate pyenv_root
    pyenv_root=${PYENV_ROOT:-$(pyenv root 2>/dev/null || printf '%s' "$home/.pyenv")}
    for name in ${wanted:-3 3.13 3.12 3.11}; do
        for candidate in "python$name" "$pyenv_root"/versions/"$name"/bin/python "$pyenv_root"/versions/"$name".*/bin/python; do
            candidate=$(command -v "$candidate") || continue
            if runs_as "$candidate" "$wanted"; then
                printf '%s\n' "$candidate"
                return
            fi
        done
    done
    return 1
}

# What an installation depends on. An editable install also depends on where the checkout lies.
installation() {
    printf '%s\n' "$root"
    cd "$root" && cksum setup.cfg pyproject.toml
}

# Which of the extras are not installed in $venv as setup.cfg and pyproject.toml stand now?
missing_extras() {  # VENV EXTRA...
    local venv=$1 now extra missing=
    shift
    now=$(installation)
    for extra in "$@"; do
        if ! [[ -x $venv/bin/python && -f $venv/.installed-$extra && $(<"$venv/.installed-$extra") == "$now" ]]; then
            missing+=${missing:+,}$extra
        fi
    done
    printf '%s' "$missing"
}

make_venv() {  # VENV [X.Y]
    local venv=$1 version=${2:-} base keep=()
    base=$(find_python "$version") || die_without_python "$version"
    "$venv/bin/python" -c '' 2>/dev/null || keep=(--clear)  # dead, or cut short while being made
    "$base" -m venv ${keep[@]+"${keep[@]}"} "$venv" || die "$base cannot make a virtual environment in $venv"
}

# Leave in $python the interpreter of a virtual environment that has connman and these extras.
# Runs at the same time wait for each other; when nothing has changed since the last run, nothing is done.
prepare() {  # VERSION-or-empty EXTRA...
    local version=$1 venv="$root/.venv${1:+-$1}"
    shift
    python=$venv/bin/python
    if [[ -n $(missing_extras "$venv" "$@") ]]; then
        install_locked "$venv" "$version" "$@" 9<"$root"
    fi
}

# The lock belongs to descriptor 9, which prepare opened. Python's fcntl, because not every system has flock(1).
install_locked() {  # VENV VERSION-or-empty EXTRA...
    local venv=$1 version=$2 base missing now extra
    shift 2
    base=$(find_python "$version") || base=$python
    "$base" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' 2>/dev/null || die_without_python "$version"
    missing=$(missing_extras "$venv" "$@")  # again: whoever held the lock may have done it
    [[ -n $missing ]] || return 0
    "$python" -m pip --version >/dev/null 2>&1 || make_venv "$venv" "$version"
    printf 'installing connman[%s] into %s\n' "$missing" "${venv#"$root"/}" >&2
    now=$(installation)
    (cd "$root" && "$python" -m pip install --quiet --disable-pip-version-check --editable ".[$missing]") >&2 || exit 1
    for extra in ${missing//,/ }; do
        printf '%s\n' "$now" >"$venv/.installed-$extra"
    done
}
