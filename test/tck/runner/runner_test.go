// SPDX-License-Identifier: Apache-2.0

package runner

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const report = `<testsuite tests="5"><testcase name="cn_01_01" classname="org.x.ProviderTest"/>
<testcase name="cn_01_02" classname="org.x.ProviderTest"><failure message="state was OFFERED&#10;and more"/></testcase>
<testcase name="cn_01_03" classname="org.x.ProviderTest"><error>java.lang.Boom
	at x</error></testcase>
<testcase name="tp_02_04" classname="org.x.TransferTest"><skipped/></testcase></testsuite>`

func TestReadAndJudge(t *testing.T) {
	dir := t.TempDir()
	if _, err := read(dir); err == nil {
		t.Error("no report at all is taken for a result")
	}
	if err := os.WriteFile(filepath.Join(dir, "TEST-junit-jupiter.xml"), []byte(report), 0o600); err != nil {
		t.Fatal(err)
	}
	res, err := read(dir)
	if err != nil || res.Ran != 3 || res.Passed != 1 || res.Skipped != 1 || len(res.Failures) != 2 {
		t.Fatalf("%+v, %v", res, err)
	}
	var out bytes.Buffer
	if err := verdict("DSP", res, 3, &out); err == nil || !strings.Contains(err.Error(), "2 of 3 tests failed") {
		t.Errorf("%v", err)
	}
	for _, line := range []string{"DSP FAILED ProviderTest.cn_01_02: state was OFFERED\n", "DSP FAILED ProviderTest.cn_01_03: java.lang.Boom\n", "DSP 1/3 (1 disabled in the kit)\n"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("%q is not in\n%s", line, &out)
		}
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		sum  Result
		want string
	}{{Result{Ran: 65, Passed: 65}, ""}, {Result{Ran: 64, Passed: 64}, "only 64 of 65 tests ran"}, {Result{}, "only 0 of 65 tests ran"},
		{Result{Ran: 65, Passed: 65, Failures: []Failure{{"wallet", "only 3 of 4 tests ran"}}}, "failed"}} {
		err := verdict("DSP", c.sum, 65, &bytes.Buffer{})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.sum, err)
		}
	}
}

// TestATimeOutOfTheKit: a test that the kit's own time-out ended is run once more; whatever else failed is not.
func TestATimeOutOfTheKit(t *testing.T) {
	slow, wrong := Failure{"RequestTest.is_1_credential(Service)", "no message within 10 seconds."}, Failure{"RequestTest.is_2", "expected 4xx"}
	for name, c := range map[string]struct {
		second Result
		passed int
		failed []Failure
	}{
		"passes then":       {Result{Ran: 1, Passed: 1}, 4, []Failure{wrong}},
		"fails again":       {Result{Ran: 1, Failures: []Failure{slow}}, 3, []Failure{slow, wrong}},
		"does not run then": {Result{}, 3, []Failure{slow, wrong}},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			var ran []string
			r := Result{Ran: 5, Passed: 3, Failures: []Failure{slow, wrong}}
			err := r.again(Kit{Name: "DCP", TimedOut: "within 10 seconds"}, &out, func(test string) (Result, error) {
				ran = append(ran, test)
				return c.second, nil
			})
			if err != nil || r.Passed != c.passed || !slices.Equal(r.Failures, c.failed) {
				t.Errorf("%+v, %v", r, err)
			}
			if !slices.Equal(ran, []string{"is_1_credential$"}) || !strings.Contains(out.String(), "run once more") {
				t.Errorf("ran %v and said %q", ran, out.String())
			}
		})
	}
}
