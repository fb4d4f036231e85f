package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// These tests boot kernels, by the program that go test -exec runs.
var program = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "box-test-")
	if err != nil {
		panic(err)
	}
	file := filepath.Join(dir, "box")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", file, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // an initramfs has no libc
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	remove = func() { os.RemoveAll(dir) }
	return file
})

// remove removes the program if it was built.
var remove = func() {}

func TestMain(m *testing.M) {
	status := m.Run()
	remove()
	os.Exit(status)
}

// needKernel skips a test whose kernel is not here, but in CI, where nobody
// would notice, fails it.
func needKernel(t *testing.T, kernel string) {
	t.Helper()
	_, err := exec.LookPath("linux.uml")
	if kernel == "smp" {
		_, err = findQEMU()
	}
	if os.Getuid() != 0 {
		err = errors.New("only root may boot kernels")
	}
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// A result is what one use of the box came to.
type result struct {
	status         int
	stdout, stderr string
}

// box runs the box to its end.
func box(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := boxCommand(args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// boxCommand is steered by args alone.
func boxCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(program(), args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, "BOX") })
	return cmd
}

func (r result) check(t *testing.T, status int) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %d, want %d; stderr:\n%s", r.status, status, r.stderr)
	}
}

func TestBoxUMLCommand(t *testing.T) { testCommand(t, "uml") }
func TestBoxSMPCommand(t *testing.T) { testCommand(t, "smp") }

// testCommand is the whole contract with a command that ends by itself.
func testCommand(t *testing.T, kernel string) {
	needKernel(t, kernel)
	t.Parallel()
	here, out, outside := t.TempDir(), filepath.Join(t.TempDir(), "out, put"), "/tmp/box-test-"+rand.Text()
	noise := make([]byte, 1<<20)
	rand.Read(noise)
	write(t, filepath.Join(here, "noise"), noise)
	script := fmt.Sprintf(`
		exec 3>"$BOX_OUT/facts"
		echo "$PWD $BOX_KERNEL $HOME $DM_DISABLE_UDEV $MESSAGE $(wc -c <&0)" >&3
		dmsetup targets >&3
		modprobe dm-snapshot && dmsetup targets | grep ^snapshot >&3
		nsenter --target 1 --mount test -e "$PWD/noise" && echo entered >&3
		exec 4<>/dev/udp/127.0.0.1/9 && echo looped >&3
		echo $(nproc) CPUs >&3
		echo lost > %s
		(sleep 100 >&1 &)
		cat noise
		echo no noise >&2
		exit 3`, outside)
	cmd := boxCommand("-kernel", kernel, "-out", out, "bash", "-c", script)
	cmd.Dir = here
	cmd.Env = append(cmd.Env, "MESSAGE=two words", "PATH=/usr/bin:/bin")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run()

	result{cmd.ProcessState.ExitCode(), "", stderr.String()}.check(t, 3)
	if !bytes.Equal(stdout.Bytes(), noise) {
		t.Errorf("%d bytes of stdout differ from the %d written", stdout.Len(), len(noise))
	}
	if stderr.String() != "no noise\n" {
		t.Errorf("stderr: %q", stderr.String())
	}
	facts := read(t, filepath.Join(out, "facts"))
	for _, fact := range []string{
		here + " " + kernel + " /root 1 two words 0\n",
		"thin-pool ", "thin ", "flakey ", "delay ", "log-writes ", "snapshot ",
		"entered\n", "looped\n", map[string]string{"uml": "1 CPUs\n", "smp": "2 CPUs\n"}[kernel],
	} {
		if !strings.Contains(facts, "\n"+fact) && !strings.HasPrefix(facts, fact) {
			t.Errorf("no line begins with %q in\n%s", fact, facts)
		}
	}
	if _, err := os.Stat(outside); err == nil {
		t.Errorf("%s is there", outside)
	}
	if left, _ := filepath.Glob(filepath.Join(out, "box-console-*")); left != nil {
		t.Errorf("%s is there", left)
	}
}

func TestBoxUMLDisk(t *testing.T) { testDisk(t, "uml") }
func TestBoxSMPDisk(t *testing.T) { testDisk(t, "smp") }

// testDisk writes a disk in one boot and reads it in the next, which then dies.
func testDisk(t *testing.T, kernel string) {
	needKernel(t, kernel)
	t.Parallel()
	dir := t.TempDir()
	first, second := filepath.Join(dir, "a,b"), filepath.Join(dir, "c")
	r := box(t, "-kernel", kernel, "-disk", first+":8M", "-disk", second+":16M", "sh", "-ec",
		`set -- $BOX_DISKS; blockdev --getsize64 "$@"; echo kept > $2`)
	r.check(t, 0)
	if r.stdout != "8388608\n16777216\n" {
		t.Errorf("the disks have %q bytes", r.stdout)
	}
	if got := read(t, second)[:5]; got != "kept\n" {
		t.Errorf("outside the disk begins with %q", got)
	}

	r = box(t, "-kernel", kernel, "-out", dir, "-disk", second, "sh", "-ec",
		`head -c 4 $BOX_DISKS; grep ^PASS /proc/self/status || echo c > /proc/sysrq-trigger`)
	r.check(t, boxFailed)
	if r.stdout != "kept" {
		t.Errorf("the disk begins with %q in the next boot", r.stdout)
	}
	checkConsole(t, r.stderr, dir, "sysrq: Trigger a crash")
}

// checkConsole looks for a phrase in the console that stderr names.
func checkConsole(t *testing.T, stderr, dir, phrase string) {
	t.Helper()
	name := regexp.MustCompile(`\(console: (.*)\)`).FindStringSubmatch(stderr)
	if name == nil || filepath.Dir(name[1]) != dir {
		t.Fatalf("no console is named in %q", stderr)
	}
	if console := read(t, name[1]); !strings.Contains(console, phrase) {
		t.Errorf("the console lacks %q:\n%s", phrase, console)
	}
}

func TestBoxUMLSignal(t *testing.T) {
	needKernel(t, "uml")
	t.Parallel()
	box(t, "sh", "-c", "kill -TERM $$").check(t, 128+int(syscall.SIGTERM))
}

// A box that ran out of time is gone with all its processes; the one beside it
// does not notice.
func TestBoxUMLTimeout(t *testing.T) {
	needKernel(t, "uml")
	t.Parallel()
	out := t.TempDir()
	neighbour := make(chan result)
	go func() { neighbour <- box(t, "sh", "-c", "sleep 6; echo fine") }()

	late := boxCommand("-timeout", "5s", "-out", out, "sleep", "100")
	var stderr bytes.Buffer
	late.Stderr = &stderr
	family := startFamily(t, late)
	_ = late.Wait()
	result{late.ProcessState.ExitCode(), "", stderr.String()}.check(t, boxFailed)
	if !strings.Contains(stderr.String(), "BOX_TIMEOUT") {
		t.Errorf("no way out is named in %q", stderr.String())
	}
	checkConsole(t, stderr.String(), out, "sysrq: Show Blocked State")
	family.checkGone(t)

	if r := <-neighbour; r.status != 0 || r.stdout != "fine\n" {
		t.Errorf("the box beside: %+v", r)
	}
}

// However a box dies, its kernel's processes go with it.
func TestBoxUMLKilled(t *testing.T) {
	needKernel(t, "uml")
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		cmd := boxCommand("sleep", "100")
		cmd.Env = append(cmd.Env, "TMPDIR="+t.TempDir())
		family := startFamily(t, cmd)
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		family.checkGone(t)
	}
}

func TestBoxMissingKernel(t *testing.T) {
	for kernel, want := range map[string]string{
		"uml": "apt-get install user-mode-linux",
		"smp": "apt-get install qemu-system-x86",
	} {
		cmd := boxCommand("-kernel", kernel, "true")
		cmd.Env = append(cmd.Env, "PATH="+t.TempDir())
		stderr, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != boxFailed || !strings.Contains(string(stderr), want) {
			t.Errorf("%s: status %d, %s", kernel, cmd.ProcessState.ExitCode(), stderr)
		}
	}
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
