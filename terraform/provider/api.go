// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/client-go/rest"

	"github.com/kaphera/kaphera/client"
)

// settings say where the Cloud API is and who calls it.
type settings struct {
	API, CAFile, ClientID, ClientSecret string
	cluster                             *rest.Config
}

// api is the Cloud API as the resources need it: objects by kind and name.
type api struct {
	*client.API
	cluster *rest.Config // of a company, for installations; nil when none is given
}

// errNotFound means that the object does not exist.
var errNotFound = errors.New("not found")

// attempt is how long to wait between looks at an object that is going away.
const attempt = time.Second

// connect makes a client and asks for the status once, so that a wrong address or log-in shows before anything is planned.
func connect(ctx context.Context, s settings) (*api, error) {
	c, err := client.New(client.Config{
		API: s.API, CAFile: s.CAFile, ClientID: s.ClientID, ClientSecret: s.ClientSecret, Manager: "terraform",
	})
	if err != nil {
		return nil, err
	}
	resp, err := c.ClientInterface.GetStatus(ctx)
	if err != nil {
		return nil, readable(err)
	}
	return &api{c, s.cluster}, resp.Body.Close()
}

func (a *api) get(ctx context.Context, kind, name string) (object, error) {
	return answer(a.Objects(kind).Get(ctx, name)) //nolint:bodyclose // answer closes it
}

func (a *api) put(ctx context.Context, kind, name string, spec any) (object, error) {
	return a.write(ctx, kind, name, spec, false)
}

// check asks whether put would be accepted; it changes nothing.
func (a *api) check(ctx context.Context, kind, name string, spec any) error {
	_, err := a.write(ctx, kind, name, spec, true)
	return err
}

func (a *api) write(ctx context.Context, kind, name string, spec any, dryRun bool) (object, error) {
	body, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		return object{}, fmt.Errorf("encode %s %s: %w", kind, name, err)
	}
	return answer(a.Objects(kind).Put(ctx, name, client.Write{DryRun: dryRun}, bytes.NewReader(body))) //nolint:bodyclose // answer closes it
}

// remove deletes an object and waits until it is gone; an object that is not there is removed already.
func (a *api) remove(ctx context.Context, kind, name string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := answer(a.Objects(kind).Delete(ctx, name, client.Write{})); errors.Is(err, errNotFound) { //nolint:bodyclose // answer closes it
		return nil
	} else if err != nil {
		return err
	}
	tick := time.NewTicker(attempt)
	defer tick.Stop()
	var last object
	for {
		o, err := a.get(ctx, kind, name)
		if errors.Is(err, errNotFound) {
			return nil
		}
		if err == nil {
			last = o
		}
		select {
		case <-ctx.Done():
			_, why := conditionsTrue(last, "Ready")
			return fmt.Errorf("it is still being removed after %s (%s); look at it with: kaphera describe %s %s", patience, why, kind, name)
		case <-tick.C:
		}
	}
}

// answer reads an object from a response of the client, which has turned every failure into an error already.
func answer(resp *http.Response, err error) (object, error) {
	var o object
	if err != nil {
		return o, readable(err)
	}
	defer func() { _ = resp.Body.Close() }()
	const most = 4 << 20
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return o, fmt.Errorf("the answer of the Cloud API broke off: %w", err)
	}
	if len(body) == 0 {
		return o, nil
	}
	if err := json.Unmarshal(body, &o); err != nil {
		return o, fmt.Errorf("the answer of the Cloud API is not JSON: %w", err)
	}
	return o, nil
}

// readable keeps an error's sentence and adds what to do next.
func readable(err error) error {
	if client.IsNotFound(err) {
		return errNotFound
	}
	if e := client.AsError(err); e != nil && e.Next != "" {
		return fmt.Errorf("%w\n\nNext: %s", err, e.Next)
	}
	return err
}
