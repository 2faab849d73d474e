# What the other scripts share. Sourced, not run.

root_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root_dir" || exit 1

say() { printf '%s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Debian packages by the program or file that shows they are there.
needs_of_build='/usr/include/pcap.h:libpcap-dev clang:clang pkg-config:pkg-config cc:gcc make:make /usr/include/libelf.h:libelf-dev
    /usr/include/bpf/bpf_helpers.h:libbpf-dev /usr/include/zlib.h:zlib1g-dev'
needs_of_lab='ip:iproute2 ping:iputils-ping ethtool:ethtool bpftool:bpftool setpriv:util-linux
    sysctl:procps'
needs_of_tests='iptables-save:iptables conntrack:conntrack nfct:nfct tcpdump:tcpdump ipset:ipset
    nfcapd:nfdump'
needs_of_web='chromium-headless-shell:chromium-headless-shell'
needs_of_figures='/usr/include/dpdk/rte_hash.h:libdpdk-dev'
needs_of_instructions='cc:gcc valgrind:valgrind'
needs_of_peers='dpdk-testpmd:dpdk-dev ovs-vswitchd:openvswitch-switch ovsdb-tool:openvswitch-common nft:nftables
    iptables-restore:iptables conntrack:conntrack iperf3:iperf3'
needs_of_manuals='man:man-db mandoc:mandoc'
needs_of_package='dpkg-deb:dpkg dpkg-shlibdeps:dpkg-dev'
needs_of_package_check='lintian:lintian debootstrap:debootstrap systemd-nspawn:systemd-container objdump:binutils'
needs_of_demo='curl:curl python3:python3'

# install_needs NEED...: installs the packages of what is missing, saying so; silent when nothing is.
install_needs() {
    local need what package log missing=''
    for need in "$@"; do
        what=${need%%:*} package=${need#*:}
        case $what in
            /*) [ -e "$what" ] || missing+=" $package" ;;
            *) PATH=$PATH:/usr/sbin:/sbin command -v "$what" >/dev/null || missing+=" $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || fail "missing:$missing. Install what your system calls these Debian packages."
    [ "$(id -u)" -eq 0 ] || fail "missing Debian packages:$missing. Run this as root, or: apt-get install$missing"
    say "installing from Debian:$missing"
    # shellcheck disable=SC2086 # one word per package
    log=$({ apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $missing; } \
        2>&1) || fail "apt-get could not install$missing:
$log"
}

# The same for what there are measurements beside: without it they are left out by name.
install_peers() {
    # shellcheck disable=SC2086 # one word per need
    (install_needs $needs_of_peers) || say "going on without what could not be installed; it is named where it is left out"
}

# A browser for the tests of the web page: without it they are skipped by name. Another Chromium will do as well.
install_browser() {
    command -v chromium >/dev/null && return 0
    # shellcheck disable=SC2086 # one word per need
    (install_needs $needs_of_web) || say "going on without a browser: tests of the web page are skipped"
}

need_root() {
    [ "$(id -u)" -eq 0 ] || fail "this makes network namespaces and attaches XDP programs: run it as root"
}

need_cargo() {
    [ -d "$HOME/.cargo/bin" ] && PATH=$PATH:$HOME/.cargo/bin
    local want have
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    command -v cargo >/dev/null || fail "no cargo here. Palisade needs Rust $want or later: install it by rustup, or by your
distribution's packages if they are that new"
    have=$(cargo --version | sed 's/^cargo \([0-9.]*\).*/\1/')
    [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] ||
        fail "cargo $have is too old: Palisade needs Rust $want or later (rustup update stable)"
}

# Where cargo puts programs of a profile.
target_dir() {
    printf '%s/%s\n' "${CARGO_TARGET_DIR:-$root_dir/target}" "$1"
}

PATH=$PATH:/usr/sbin:/sbin
