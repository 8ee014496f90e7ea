// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/test/freeport"
	"github.com/kaphera/kaphera/test/tck/runner"
)

// Tests that the kit runs; two more are disabled in it.
const want = 65

const definition = "tck"

// Kit is the DSP kit; pom is the path of this package's pom.xml.
func Kit(pom string) runner.Kit {
	return runner.Kit{Name: "DSP", POM: pom, Want: want, Start: start}
}

func start(ctx context.Context) ([]runner.Run, func(), error) {
	level := slog.LevelWarn
	if os.Getenv("TCK_DEBUG") != "" {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	pg, err := pgtest.Start() //nolint:contextcheck // it ends with stop, not with the context
	if err != nil {
		return nil, nil, err
	}
	if err := pg.Create("kaphera"); err != nil { //nolint:contextcheck // as above
		pg.Stop()
		return nil, nil, err
	}
	c, err := startConnector(ctx, config.Database{Host: "127.0.0.1", Port: pg.Port, Name: "kaphera", User: "kaphera", SSLMode: "disable", MaxConns: 20}, log)
	if err != nil {
		pg.Stop()
		return nil, nil, err
	}
	stop := func() { c.stop(); pg.Stop() }
	port, err := freeport.Pick()
	if err != nil {
		stop()
		return nil, nil, err
	}
	props, err := properties(c.url, c.trigger, port)
	if err != nil {
		stop()
		return nil, nil, err
	}
	return []runner.Run{{Name: "connector", Packages: []string{"org.eclipse.dataspacetck.dsp.verification"}, Properties: props}}, stop, nil
}

// numbers of the kit's tests: group, how many.
var groups = []struct {
	prefix string
	counts [3]int
}{{"CN", [3]int{4, 7, 4}}, {"CN_C", [3]int{4, 6, 6}}, {"TP", [3]int{5, 5, 6}}, {"TP_C", [3]int{5, 5, 6}}}

// each calls f with the test's key (CN_01_02) and the id that is used in it (ACN0102).
func each(f func(prefix, key, id string)) {
	for _, g := range groups {
		for i, n := range g.counts {
			for j := 1; j <= n; j++ {
				f(g.prefix, fmt.Sprintf("%s_%02d_%02d", g.prefix, i+1, j), fmt.Sprintf("A%s%02d%02d", strings.ReplaceAll(g.prefix, "_", ""), i+1, j))
			}
		}
	}
}

// datasets are what the connector offers as provider; CAT0103 is asked for and must not be there.
func datasets() []string {
	out := []string{"CAT0101", "CAT0102"}
	each(func(prefix, _, id string) {
		if prefix == "CN" {
			out = append(out, id)
		}
	})
	slices.Sort(out)
	return out
}

// properties is the kit's configuration (its launcher reads system properties).
func properties(url, trigger string, port int) (map[string]string, error) {
	policy, err := odrl.Parse(json.RawMessage(usePolicy))
	if err != nil {
		return nil, err
	}
	p := map[string]string{
		"dataspacetck.launcher":                                 "org.eclipse.dataspacetck.dsp.system.DspSystemLauncher",
		"dataspacetck.host":                                     "127.0.0.1",
		"dataspacetck.port":                                     fmt.Sprint(port),
		"dataspacetck.callback.address":                         fmt.Sprintf("http://127.0.0.1:%d", port),
		"dataspacetck.ansi":                                     "false",
		"dataspacetck.dsp.default.wait":                         "60", // s at most for what is to happen; 15 are not enough on a busy machine
		"dataspacetck.dsp.connector.agent.id":                   ownID,
		"dataspacetck.dsp.connector.http.url":                   url + "/dsp/2025-1",
		"dataspacetck.dsp.connector.http.base.url":              url,
		"dataspacetck.dsp.connector.http.headers.authorization": "Bearer anybody",
		"dataspacetck.dsp.connector.negotiation.initiate.url":   trigger + "/negotiation",
		"dataspacetck.dsp.connector.transfer.initiate.url":      trigger + "/transfer",
		"CAT_01_01_DATASETID":                                   "CAT0101", "CAT_01_02_DATASETID": "CAT0102", "CAT_01_03_DATASETID": "CAT0103",
	}
	missing := errors.New("")
	each(func(prefix, key, id string) {
		table := providerScript
		if strings.HasSuffix(prefix, "_C") {
			table = consumerScript
		}
		if _, ok := table[id]; !ok {
			missing = fmt.Errorf("%w the script has nothing for %s;", missing, id)
		}
		switch prefix {
		case "CN":
			p[key+"_DATASETID"], p[key+"_OFFERID"] = id, wire.OfferID(definition, id, policy)
		case "CN_C":
			p[key+"_DATASETID"] = id
		default:
			p[key+"_AGREEMENTID"], p[key+"_FORMAT"] = id, dps.FormatHTTPPull
		}
	})
	if missing.Error() != "" {
		return nil, missing
	}
	return p, nil
}
