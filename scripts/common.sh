# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the scripts share; sourced by bash, from anywhere.

tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# shellcheck disable=SC2034 # for who sources this
build_packages=(gcc libc6-dev meson ninja-build pkg-config fuse3 libfuse3-dev zlib1g-dev
	libdeflate-dev libzstd-dev liblzma-dev libxxhash-dev uthash-dev libarchive-dev
	libexpat1-dev libseccomp-dev libcap-ng-dev)

say() {
	if [ -t 1 ]; then
		printf '\n\033[1m%s\033[0m\n' "$*"
	else
		printf '\n%s\n' "$*"
	fi
}

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

need_root() {
	[ "$(id -u)" = 0 ] || die "needs root, to install packages and to mount: sudo $0 $*"
}

# install_packages NAME...: those that are not there yet, quietly.
install_packages() {
	local missing=() name

	for name; do
		dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' ||
			missing+=("$name")
	done
	[ ${#missing[@]} = 0 ] && return
	echo "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update >/dev/null </dev/null || die "apt-get update failed"
	apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null </dev/null ||
		die "apt-get install failed"
}

# build DIRECTORY [MESON OPTION...]: what it says goes to a log, shown when it fails. The files
# belong to whom the tree belongs to, so that its owner can remove them without sudo.
build() {
	local directory=$1 log
	shift
	log=$(mktemp)
	if { meson setup --reconfigure "$directory" "$tree" "$@" 2>&1 ||
		{ rm -rf "$directory" && meson setup "$directory" "$tree" "$@"; } &&
		ninja -C "$directory"; } >"$log" 2>&1; then
		rm -f "$log"
		chown -R --reference="$tree" "$directory"
	else
		tail -n 60 "$log" >&2
		rm -f "$log"
		die "the build in $directory failed"
	fi
}

# ---- tests: what fails sets failed; $results takes JUnit files, $work what tests write ----

# run_unit NAME DIRECTORY: the C tests of a build.
# shellcheck disable=SC2034,SC2154 # of who sources this
run_unit() {
	local log=$2/meson-logs/testlog.junit.xml

	rm -f "$log"
	meson test -C "$2" --suite unit --print-errorlogs || failed=1
	cp "$log" "$results/unit-$1.xml" || failed=1
}

# run_pytest NAME DIRECTORY [OPTION...], with Debian's Python, which has Debian's pytest.
# shellcheck disable=SC2154
run_pytest() {
	local name=$1 directory=$2 status=0
	shift 2
	PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m pytest -p no:cacheprovider -q --tb=short \
		-rfE --basetemp="$work/$name" --junitxml="$results/$name.xml" \
		"$tree/tests/$directory" "$@" || status=1
	rm -rf --one-file-system "${work:?}/$name"
	return $status
}
