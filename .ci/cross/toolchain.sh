#!/usr/bin/env bash
# Sets up, from Debian's packages alone, a Rust toolchain whose standard library can be built for
# targets other than the host: Windows and macOS, type-checked; Windows tests under Wine on request.
#
#   toolchain.sh DIR          about 1.5 GiB and some minutes; writes DIR/env
#   toolchain.sh DIR --wine   also the Windows linker and Wine, so that test programs can run
#   . DIR/env                 then use:
#       cargo check $CROSS_STD --target x86_64-apple-darwin --lib
#       cargo test  $CROSS_STD --target x86_64-pc-windows-gnu --lib --tests     (after --wine)
#
# It needs root, because it asks apt. Everything except Wine and the Windows linker stays in DIR.
# The compiler is Rust 1.85, so a passing run also shows that the crate builds with Rust 1.85.
set -euo pipefail

readonly VERSION='1.85.0+dfsg3-1~deb12u3'
readonly SOURCES=/etc/apt/sources.list.d/nicring-cross-src.sources

main() {
    dir=$(mkdir -p "${1:?usage: toolchain.sh DIR [--wine]}" && cd "$1" && pwd)
    root=$dir/root
    if [[ ! -f $dir/env ]]; then
        add_source_entries
        unpack_compiler
        unpack_standard_library_source
        install_import_library_tool
        wrap_compiler
        write_env # last: its presence says that DIR is complete
    fi
    if [[ ${2:-} == --wine && ! -x $dir/wine-run ]]; then
        add_wine
    fi
    echo "ready: . $dir/env"
}

add_source_entries() {
    echo 'source entries, package lists'
    trap 'rm -f "$SOURCES"' EXIT
    sed 's/^Types: deb$/Types: deb-src/' /etc/apt/sources.list.d/debian.sources > "$SOURCES"
    apt-get -qq update
}

unpack_compiler() {
    echo 'the compiler and its libraries'
    rm -rf "$dir/debs" "$root"
    mkdir -p "$dir/debs" "$root"
    # apt drops its privileges for a download, which then fails on a directory of root's own.
    (cd "$dir/debs" && apt-get -qq -o APT::Sandbox::User=root download "rustc-web=$VERSION" \
        "libstd-rust-web-1.85=$VERSION" "libstd-rust-web-dev=$VERSION" libllvm19)
    local deb
    for deb in "$dir"/debs/*.deb; do dpkg -x "$deb" "$root"; done
    rm -r "$dir/debs"
}

unpack_standard_library_source() {
    echo 'the source of the standard library'
    local uri
    uri=$(apt-get source --print-uris "rustc-web=$VERSION" 2> /dev/null |
        awk -F"'" '/orig\.tar\.xz/ {print $2}')
    /usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file \
        "$uri" "$dir/rust.tar.xz" > /dev/null
    mkdir -p "$root/usr/lib/rustlib/src/rust"
    tar -xJf "$dir/rust.tar.xz" -C "$root/usr/lib/rustlib/src/rust" --strip-components=1 \
        --wildcards '*/library'
    rm "$dir/rust.tar.xz"
}

install_import_library_tool() {
    echo 'dlltool, which even a check of the standard library for Windows calls'
    install binutils-mingw-w64-x86-64
}

wrap_compiler() {
    local tool
    for tool in rustc rustdoc; do
        cat > "$dir/$tool" << EOF
#!/bin/sh
LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu:$root/usr/lib exec $root/usr/bin/$tool "\$@"
EOF
        chmod +x "$dir/$tool"
    done
}

write_env() {
    cat > "$dir/env" << EOF
export RUSTC=$dir/rustc RUSTDOC=$dir/rustdoc RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR=$dir/target
export CROSS_STD=-Zbuild-std=std,panic_unwind,test
export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$dir/wine-run
EOF
}

add_wine() {
    echo 'the Windows linker, and Wine'
    install gcc-mingw-w64-x86-64 wine64

    # The two start-up objects that windows-gnu programs link.
    local objects=$root/usr/lib/rustlib/x86_64-pc-windows-gnu/lib name
    mkdir -p "$objects" "$dir/dll"
    for name in rsbegin rsend; do
        RUSTC_BOOTSTRAP=1 "$dir/rustc" --cfg bootstrap --target x86_64-pc-windows-gnu --emit=obj \
            -o "$objects/$name.o" "$root/usr/lib/rustlib/src/rust/library/rtstartup/$name.rs"
    done

    # The Rust standard library loads bcryptprimitives.dll, which Debian 12's Wine lacks.
    cat > "$dir/dll/bcryptprimitives.c" << 'EOF'
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T len) {
    return SystemFunction036(bytes, (ULONG)len);
}
EOF
    x86_64-w64-mingw32-gcc -shared -o "$dir/dll/bcryptprimitives.dll" \
        "$dir/dll/bcryptprimitives.c" -ladvapi32

    # Wine's drives are links, one of them to /: they must not stand below a package, where cargo
    # would follow them.
    cat > "$dir/wine-run" << EOF
#!/bin/sh
# cargo's runner for Windows programs
export WINEPREFIX="\${TMPDIR:-/tmp}/nicring-wine-\$(id -u)" WINEDEBUG=-all
export WINEPATH="\$(printf 'Z:%s' $dir/dll | tr / '\\\\')"
exec /usr/lib/wine/wine64 "\$@"
EOF
    chmod +x "$dir/wine-run"
}

install() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" \
        > "$dir/apt.log"
}

main "$@"
