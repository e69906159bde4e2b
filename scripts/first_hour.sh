#!/usr/bin/env bash
# The first hour on a GPU: everything that only a GPU can tell, in the order in which it is worth knowing, as one report to paste
# into an issue. It goes on after a step that fails, and says so.
#
#     .ci/cuda build --release --features cudnn
#     scripts/first_hour.sh [REPORT]               # first-hour.md
#
# LD3SH: the program (target/cuda/build/release/ld3sh); FIRST_HOUR=small: only what takes seconds
set -u
cd "$(dirname "$0")/.."
report=${1:-first-hour.md}
ld3sh=${LD3SH:-target/cuda/build/release/ld3sh}
small=${FIRST_HOUR:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
: >"$report" || exit 1

# a step: its title, then the command
step() {
    local title=$1 begin=$SECONDS code
    shift
    printf '\n## %s\n\n    %s\n\n```text\n' "$title" "$*" >>"$report"
    "$@" >"$work/said" 2>&1
    code=$?
    # long outputs: the end says what happened
    tail -n 60 "$work/said" >>"$report"
    printf '```\n\nexit code %s, %s s\n' "$code" $((SECONDS - begin)) >>"$report"
    [ "$code" = 0 ] || failed=$((failed + 1))
    printf '%-50s exit code %s, %s s\n' "$title" "$code" $((SECONDS - begin))
}
# a step whose tool may not be here
with() {
    local tool=$1
    shift
    if command -v "$tool" >/dev/null; then step "$@"; else printf '\n## %s\n\n%s is not here: not done\n' "$1" "$tool" >>"$report"; fi
}
quickstart() {
    "$ld3sh" --quiet --device "$1" --out "$work/$1" scripts/quickstart.rhai $(sed -n 's|^// small: ||p' scripts/quickstart.rhai)
}
twice() {
    export LD3SH_CACHE=$work/cache
    quickstart cpu >"$work/cpu.txt" && quickstart cuda >"$work/first.txt" && quickstart cuda >"$work/second.txt" &&
        cmp "$work/first.txt" "$work/second.txt" && diff "$work/cpu.txt" "$work/first.txt"
    # the CPU's table and the GPU's differ in their last digits
    [ -s "$work/second.txt" ] && cmp -s "$work/first.txt" "$work/second.txt"
}

{
    echo "# ld3sh on a GPU"
    echo
    "$ld3sh" --version
    git log -1 --format='commit %h of %cs' 2>/dev/null
    command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv
} >>"$report" 2>&1

step "It starts" "$ld3sh" --device cuda -e 'print((ones([1000]) * 2).sum().item())'
if [ -z "$small" ]; then
    with compute-sanitizer "Memory" compute-sanitizer --tool memcheck "$ld3sh" --device cuda -e 'denoiser::load("fashion28").denoise(randn([2, 1, 28, 28]), 1.0)'
    with compute-sanitizer "Races" compute-sanitizer --tool racecheck "$ld3sh" --device cuda -e 'denoiser::load("fashion28").denoise(randn([2, 1, 28, 28]), 1.0)'
    with compute-sanitizer "Uninitialized memory" compute-sanitizer --tool initcheck "$ld3sh" --device cuda -e 'denoiser::load("fashion28").denoise(randn([2, 1, 28, 28]), 1.0)'
    step "Tests" .ci/cuda test --release --features cudnn --test cuda -- --include-ignored --skip pretend::
    step "Tests, one after the other" .ci/cuda test --release --features cudnn --test cuda -- --ignored gpu:: --test-threads=1
    step "Tests without cuDNN" env LD3SH_NO_CUDNN=1 .ci/cuda test --release --features cudnn --test cuda -- --ignored gpu::
fi
step "The quickstart on the CPU, on the GPU, and again from the cache" twice
step "A state saved right after a long computation" "$ld3sh" --device cuda --out "$work" -e '
    let x = randn([1024, 1024]); let y = x; for i in 0..20 { y = y.matmul(x) / 32.0; }
    state::save(out("s.state"), #{ y: y }); let z = state::load(out("s.state")).y; if (y - z).abs().max().item() != 0.0 { throw "it differs" }'
if [ -z "$small" ]; then
    for dtype in f32 bf16; do
        for batch in 2 16 64; do
            for also in "" --tf32; do
                [ "$dtype$also" != bf16--tf32 ] || continue
                case=$(printf '{"what": "net", "net": "cifar10", "batch": %s, "gradient": true}' "$batch")
                step "CIFAR-10, batch $batch, $dtype $also" "$ld3sh" bench --device cuda $also --dtype "$dtype" "$case"
            done
        done
    done
    step "CIFAR-10, batch 64, without cuDNN" env LD3SH_NO_CUDNN=1 "$ld3sh" bench --device cuda '{"what": "net", "net": "cifar10", "batch": 64, "gradient": true}'
    step "Training steps" "$ld3sh" bench --device cuda step
    with nsys "Launches of an evaluation" nsys profile --stats=true -o "$work/nsys" "$ld3sh" bench --device cuda '{"what": "net", "net": "cifar10", "batch": 2}'
fi
step "Memory that runs out can be caught" "$ld3sh" --device cuda -e '
    try { let all = []; loop { all.push(zeros([1 << 28])); } } catch (e) { if e.kind != "memory" { throw e } } print((ones([10]) * 2).sum().item())'

printf '\n%s steps failed\n' "$failed" >>"$report"
echo "the report: $report"
[ "$failed" = 0 ]
