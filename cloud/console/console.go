// SPDX-License-Identifier: FSL-1.1-ALv2

package console

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/a-h/templ"

	"github.com/kaphera/kaphera/cloud/api"
	"github.com/kaphera/kaphera/cloud/authz"
)

//go:embed assets
var assets embed.FS

// Config is what the console needs.
type Config struct {
	Service  *api.Service
	Identity *api.OIDC
	// URL is the public address, https://console.<domain>.
	URL                    string
	ClientID, ClientSecret string
	Now                    func() time.Time
	Log                    *slog.Logger
}

type console struct {
	Config
	sealer  *sealer
	policy  string // Content-Security-Policy
	started time.Time
	ended   endedSessions
}

// New makes the console.
func New(c Config) (http.Handler, error) {
	sealer, err := newSealer(c.ClientSecret)
	if err != nil {
		return nil, err
	}
	issuer, err := url.Parse(c.Service.Info.Issuer)
	if err != nil {
		return nil, fmt.Errorf("console: issuer: %w", err)
	}
	s := &console{Config: c, sealer: sealer, started: c.Now()}
	// Logging out posts a form whose answer leads to the identity provider, so forms may end there.
	s.policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self' " +
		issuer.Scheme + "://" + issuer.Host + "; frame-ancestors 'none'; base-uri 'none'"
	return s.headers(s.routes()), nil
}

func (s *console) routes() http.Handler {
	mux := http.NewServeMux()
	static, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // the folder is embedded
	}
	mux.Handle("GET /assets/", cached(http.StripPrefix("/assets/", http.FileServerFS(static))))
	mux.HandleFunc("GET /login", s.login)
	mux.HandleFunc("GET /callback", s.callback)
	mux.HandleFunc("POST /logout", s.logout)
	mux.HandleFunc("GET /{$}", s.page(authz.OpStatus, s.statusPage))
	mux.HandleFunc("GET /status", s.page(authz.OpStatus, s.statusTable))
	mux.HandleFunc("GET /approvals", s.page(authz.OpListApprovals, s.approvalsPage))
	mux.HandleFunc("POST /approvals/keys", s.page(authz.OpRegisterKey, s.registerKey))
	mux.HandleFunc("GET /use-cases", s.page(authz.OpListUseCases, s.useCasesPage))
	mux.HandleFunc("GET /use-cases/{useCase}", s.page(authz.OpListRevisions, s.useCasePage))
	mux.HandleFunc("POST /use-cases/{useCase}/revisions/{number}/sign-off", s.page(authz.OpSignOff, s.signOff))
	mux.HandleFunc("POST /participants/{participant}/negotiations/{id}/decisions", s.page(authz.OpDecide, s.decide))
	mux.HandleFunc("GET /participants/{participant}", s.page(authz.OpGetParticipant, s.participantPage))
	mux.HandleFunc("GET /participants/{participant}/negotiations", s.page(authz.OpListNegotiations, s.negotiationsPage))
	mux.HandleFunc("POST /participants/{participant}/negotiations", s.page(authz.OpStartNegotiation, s.startNegotiation))
	mux.HandleFunc("GET /participants/{participant}/negotiations/{id}", s.page(authz.OpGetNegotiation, s.negotiationPage))
	mux.HandleFunc("POST /participants/{participant}/negotiations/{id}/accept", s.page(authz.OpAcceptNegotiation, s.acceptTerms))
	mux.HandleFunc("POST /participants/{participant}/negotiations/{id}/counter", s.page(authz.OpCounterNegotiation, s.counterTerms))
	mux.HandleFunc("POST /participants/{participant}/negotiations/{id}/terminate", s.page(authz.OpTerminateNegotiation, s.endNegotiation))
	mux.HandleFunc("GET /participants/{participant}/negotiations/{id}/events", s.page(authz.OpWatchNegotiation, s.negotiationEvents))
	mux.HandleFunc("GET /participants/{participant}/catalog", s.page(authz.OpGetCatalog, s.catalogPage))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		v := view{lang: language(r)}
		if sess, err := s.session(r); err == nil {
			v.who = sess.Principal
		}
		s.fail(w, r, v, &api.Problem{Title: http.StatusText(http.StatusNotFound), Status: http.StatusNotFound, Code: api.CodeNotFound, Detail: v.t("no such page")})
	})
	// Changes come from our own pages only.
	protection := http.NewCrossOriginProtection()
	return protection.Handler(mux)
}

func (s *console) headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", s.policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Strict-Transport-Security", "max-age=31536000")
		h.Set("Cache-Control", "no-store")
		h.Set("Vary", "Accept-Language, Cookie")
		next.ServeHTTP(w, r)
	})
}

func cached(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		next.ServeHTTP(w, r)
	})
}

// view is what every page shows: the language, who is logged in, where in the console.
type view struct {
	lang lang
	who  authz.Principal
	// may says whether the person may call the operation at all, to hide what would be refused.
	may func(operation string) bool
	// partners are the participants of the dataspace that the page is about.
	partners []api.Partner
}

// party is what people call the participant with a DID; the DID itself when it is of elsewhere.
func (v view) party(did string) string {
	for _, p := range v.partners {
		if p.DID == did {
			return p.Organization
		}
	}
	return did
}

func (v view) t(text string) string { return v.lang.t(text) }

// page authenticates and authorizes a page by the operation of the Cloud API that it stands for.
func (s *console) page(operation string, show func(w http.ResponseWriter, r *http.Request, v view) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := view{lang: language(r), may: func(string) bool { return false }}
		sess, err := s.fresh(w, r)
		if err != nil {
			s.toLogin(w, r, v, err)
			return
		}
		v.who = sess.Principal
		v.may = func(op string) bool { _, err := authz.Authorize(r.Context(), v.who, op); return err == nil }
		ctx, err := authz.Authorize(r.Context(), v.who, operation)
		if err != nil {
			s.fail(w, r, v, api.Denied(err))
			return
		}
		if err := show(w, r.WithContext(ctx), v); err != nil {
			s.fail(w, r, v, err)
		}
	}
}

// toLogin sends a page's visitor to log in; a fragment or a form can't be, so it is told.
func (s *console) toLogin(w http.ResponseWriter, r *http.Request, v view, err error) {
	switch {
	case r.Header.Get("HX-Request") != "":
		w.Header().Set("HX-Redirect", "/login")
		w.WriteHeader(http.StatusUnauthorized)
	case r.Method == http.MethodGet && !errors.Is(err, errIdentityProvider):
		http.Redirect(w, r, "/login?"+url.Values{"to": {r.URL.RequestURI()}}.Encode(), http.StatusSeeOther)
	case errors.Is(err, errIdentityProvider):
		s.fail(w, r, v, &api.Problem{Status: http.StatusServiceUnavailable, Code: api.CodeNotReady, Detail: v.t("The identity provider does not answer."), Next: v.t("Try again in a moment.")})
	default:
		s.fail(w, r, v, &api.Problem{Status: http.StatusUnauthorized, Code: api.CodeUnauthenticated, Detail: v.t("Your session has ended."), Next: v.t("Log in and repeat what you did.")})
	}
}

// render writes a page. It is rendered whole first, so that what fails is an error page and not half a page.
func (s *console) render(w http.ResponseWriter, r *http.Request, status int, page templ.Component) error {
	var buf bytes.Buffer
	if err := page.Render(r.Context(), &buf); err != nil {
		return fmt.Errorf("render %s: %w", r.URL.Path, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes()) // the visitor has gone, then
	return nil
}

// fail shows the error page.
func (s *console) fail(w http.ResponseWriter, r *http.Request, v view, err error) {
	var p *api.Problem
	if !errors.As(err, &p) {
		s.Log.Error("page failed", "path", r.URL.Path, "error", err)
		p = &api.Problem{Status: http.StatusInternalServerError, Code: api.CodeInternal, Detail: v.t("Something went wrong on our side."), Next: v.t("Try again in a moment.")}
	}
	if v.may == nil {
		v.may = func(string) bool { return false }
	}
	if cause := errors.Unwrap(p); cause != nil {
		s.Log.Warn("page failed", "path", r.URL.Path, "error", cause)
	}
	if err := s.render(w, r, p.Status, errorPage(v, p)); err != nil {
		http.Error(w, p.Detail, p.Status)
	}
}
