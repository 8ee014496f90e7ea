// SPDX-License-Identifier: Apache-2.0

// Package runner runs an Eclipse dataspace test kit (JUnit, from Maven Central) against a system that the caller has started, and
// counts. It knows no protocol; what a kit is and what it is run against is said by the package of that kit.
package runner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Kit is a test kit and the system that it is run against.
type Kit struct {
	Name string // of the summary line: "DSP"
	POM  string // path of the pom.xml that names the kit's class path
	Want int    // how many tests have to run; fewer is a failure
	// TimedOut is in the message of a test that ended by a time-out which is fixed in the kit, and too short for a busy machine. Such a test
	// is run once more, which is said. Empty: the kit has none.
	TimedOut string
	// Start brings the system under test up and says how the kit is run against it, one JVM for each run.
	Start func(ctx context.Context) (runs []Run, stop func(), err error)
}

// Run is one start of the kit.
type Run struct {
	Name       string            // shown when there are several
	Packages   []string          // Java packages whose tests are run
	Properties map[string]string // of the kit
	// Want is how many tests of this run have to run; 0 leaves it to the kit's sum.
	Want int
}

// Result counts a kit's tests.
type Result struct {
	Ran, Passed int
	Skipped     int // disabled in the kit itself
	Failures    []Failure
}

// Failure is a test that did not pass.
type Failure struct {
	Test, Message string
}

const (
	mavenTimeout = 10 * time.Minute
	runTimeout   = 20 * time.Minute
)

// Execute runs a kit, writes failures and the summary line ("DSP 65/65") to out, and returns an error unless every test ran and passed.
func Execute(ctx context.Context, kit Kit, only string, out io.Writer) error {
	classPath, err := ClassPath(ctx, kit.POM)
	if err != nil {
		return fmt.Errorf("%s kit: %w", kit.Name, err)
	}
	runs, stop, err := kit.Start(ctx)
	if err != nil {
		return fmt.Errorf("%s kit: start the system under test: %w", kit.Name, err)
	}
	defer stop()
	var sum Result
	want := kit.Want
	for _, run := range runs {
		res, err := execute(ctx, classPath, run, only)
		if err == nil {
			err = res.again(kit, out, func(test string) (Result, error) { return execute(ctx, classPath, run, test) })
		}
		if err != nil {
			return fmt.Errorf("%s kit %s: %w", kit.Name, run.Name, err)
		}
		if only == "" && res.Ran < run.Want {
			sum.Failures = append(sum.Failures, Failure{run.Name, fmt.Sprintf("only %d of %d tests ran", res.Ran, run.Want)})
		}
		sum.Ran, sum.Passed, sum.Skipped = sum.Ran+res.Ran, sum.Passed+res.Passed, sum.Skipped+res.Skipped
		sum.Failures = append(sum.Failures, res.Failures...)
	}
	if only != "" {
		want = sum.Ran
	}
	return verdict(kit.Name, sum, want, out)
}

// again runs once more what ended by a time-out of the kit. Only a pass changes the result.
func (r *Result) again(kit Kit, out io.Writer, execute func(test string) (Result, error)) error {
	for _, f := range slices.Clone(r.Failures) {
		if kit.TimedOut == "" || !strings.Contains(f.Message, kit.TimedOut) {
			continue
		}
		_, method, _ := strings.Cut(f.Test, ".")
		method, _, _ = strings.Cut(method, "(")
		_, _ = fmt.Fprintf(out, "%s: %s ended by a time-out of the kit (%s); it is run once more\n", kit.Name, f.Test, f.Message)
		second, err := execute(method + "$") // and none whose name only begins so
		if err != nil {
			return err
		}
		if second.Ran == 1 && second.Passed == 1 {
			r.Passed++
			r.Failures = slices.DeleteFunc(r.Failures, func(other Failure) bool { return other == f })
		}
	}
	return nil
}

// verdict prints failures and the summary line.
func verdict(name string, sum Result, want int, out io.Writer) error {
	for _, f := range sum.Failures {
		_, _ = fmt.Fprintf(out, "%s FAILED %s: %s\n", name, f.Test, f.Message)
	}
	_, _ = fmt.Fprintf(out, "%s %d/%d (%d disabled in the kit)\n", name, sum.Passed, want, sum.Skipped)
	switch {
	case sum.Ran < want || sum.Ran == 0:
		return fmt.Errorf("%s kit: only %d of %d tests ran", name, sum.Ran, want)
	case sum.Passed < sum.Ran || len(sum.Failures) > 0:
		return fmt.Errorf("%s kit: %d of %d tests failed", name, sum.Ran-sum.Passed, sum.Ran)
	}
	return nil
}

// ClassPath returns the class path that a pom (and its profiles, if given) names, downloading it with Maven when it is not there yet.
func ClassPath(ctx context.Context, pom string, profiles ...string) (string, error) {
	raw, err := os.ReadFile(pom) // #nosec G304 -- part of the repository
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Append(raw, profiles))
	dir, err := CacheDir("tck")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, hex.EncodeToString(sum[:8])+".classpath")
	if cp, err := os.ReadFile(file); err == nil && allThere(string(cp)) { // #nosec G304 G703 -- in the own cache
		return string(cp), nil
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", errors.New("mvn is not on PATH: install Maven (apt-get install maven) and run again")
	}
	ctx, cancel := context.WithTimeout(ctx, mavenTimeout)
	defer cancel()
	args := []string{"-B", "-q", "-f", pom, "dependency:build-classpath", "-Dmdep.outputFile=" + file}
	for _, p := range profiles {
		args = append(args, "-P", p)
	}
	var lastOutput []byte
	for range 3 { // registries hiccup
		cmd := exec.CommandContext(ctx, mvn, args...) // #nosec G204
		if lastOutput, err = cmd.CombinedOutput(); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("resolve %s with Maven: %w: %s", pom, err, tail(lastOutput, 12))
	}
	cp, err := os.ReadFile(file) // #nosec G304 G703 -- in the own cache
	return string(cp), err
}

// CacheDir is a folder of the cache that a set-up keeps between runs.
func CacheDir(name string) (string, error) {
	dir := os.Getenv("KAPHERA_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(base, "kaphera")
	}
	dir = filepath.Join(dir, name)
	return dir, os.MkdirAll(dir, 0o755) // #nosec G301 G703 -- where the user keeps caches
}

func allThere(classPath string) bool {
	return classPath != "" && !slices.ContainsFunc(filepath.SplitList(classPath), func(jar string) bool {
		_, err := os.Stat(jar)
		return err != nil
	})
}

func execute(ctx context.Context, classPath string, run Run, only string) (Result, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return Result{}, errors.New("java is not on PATH: install a Java runtime of version 17 or later and run again")
	}
	reports, err := os.MkdirTemp("", "tck")
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = os.RemoveAll(reports) }()
	args := []string{"-Xmx512m"}
	for _, k := range slices.Sorted(maps.Keys(run.Properties)) {
		args = append(args, "-D"+k+"="+run.Properties[k])
	}
	args = append(args, "-cp", classPath, "org.junit.platform.console.ConsoleLauncher", "execute", "--disable-banner", "--disable-ansi-colors",
		"--details=none", "--include-classname=.*Test", "--reports-dir="+reports)
	for _, p := range run.Packages {
		args = append(args, "--select-package="+p)
	}
	if only != "" {
		args = append(args, "--include-methodname=.*"+only+".*")
	}
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, java, args...) // #nosec G204
	cmd.Stdout, cmd.Stderr = &output, &output
	runErr := cmd.Run()
	if log := os.Getenv("TCK_LOG"); log != "" {
		_ = os.WriteFile(log, output.Bytes(), 0o600) // #nosec G703 -- where the user wants it
	}
	res, err := read(reports)
	if err != nil {
		return Result{}, fmt.Errorf("no report from the kit: %w: %s", errors.Join(err, runErr), tail(output.Bytes(), 20))
	}
	// What the kit refuses it writes to its own log only: the handler's thread dies and the test waits in vain.
	for line := range strings.Lines(output.String()) {
		if strings.Contains(line, "Invalid message") && len(res.Failures) > 0 {
			res.Failures = append(res.Failures, Failure{"(kit's log)", strings.TrimSpace(line)})
		}
	}
	return res, nil
}

type suite struct {
	Cases []struct {
		Name    string   `xml:"name,attr"`
		Class   string   `xml:"classname,attr"`
		Skipped *outcome `xml:"skipped"`
		Failure *outcome `xml:"failure"`
		Error   *outcome `xml:"error"`
	} `xml:"testcase"`
}

type outcome struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// read counts the test cases of the reports in a directory.
func read(dir string) (Result, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.xml"))
	if err != nil || len(files) == 0 {
		return Result{}, errors.New("no report was written")
	}
	var res Result
	for _, f := range files {
		raw, err := os.ReadFile(f) // #nosec G304
		if err != nil {
			return Result{}, err
		}
		var s suite
		if err := xml.Unmarshal(raw, &s); err != nil {
			return Result{}, fmt.Errorf("report %s: %w", filepath.Base(f), err)
		}
		for _, c := range s.Cases {
			bad := c.Failure
			if c.Error != nil {
				bad = c.Error
			}
			switch {
			case c.Skipped != nil:
				res.Skipped++
				continue
			case bad != nil:
				res.Failures = append(res.Failures, Failure{c.Class[strings.LastIndex(c.Class, ".")+1:] + "." + c.Name, firstLine(bad)})
			default:
				res.Passed++
			}
			res.Ran++
		}
	}
	return res, nil
}

func firstLine(o *outcome) string {
	s := o.Message
	if s == "" {
		s = o.Text
	}
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}

func tail(b []byte, lines int) string {
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
