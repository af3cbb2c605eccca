// Stands where Harbor's core stands between nginx and the registry, and does nothing of what core does but the two things that
// every request pays: the hop, with the pool of connections that Harbor configures, and the basic authentication that the
// registry checks with bcrypt. A real core is slower.
package main

import (
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: floor LISTEN REGISTRY_URL USER PASSWORD")
	}
	registry, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	user, password := os.Args[3], os.Args[4]
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(registry)
			r.Out.Host = r.In.Host
			r.Out.SetBasicAuth(user, password)
		},
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			MaxIdleConns:          100,
			MaxIdleConnsPerHost:   25,
			IdleConnTimeout:       90 * time.Second,
			ExpectContinueTimeout: time.Second,
			DisableCompression:    true,
		},
		ErrorLog: log.New(os.Stderr, "", 0),
	}
	log.Fatal(http.ListenAndServe(os.Args[1], proxy))
}
