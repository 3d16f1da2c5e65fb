// Go's net/http client; prints what it saw as JSON.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"sync"
	"time"
)

type answer struct {
	Status    int                 `json:"status"`
	Headers   map[string][]string `json:"headers"`
	Size      int                 `json:"size"`
	Sha256    string              `json:"sha256"`
	Text      string              `json:"text"`
	Continued bool                `json:"continued"`
	Reused    bool                `json:"reused"`
}

var url = os.Args[1]
var client = &http.Client{
	Timeout: 20 * time.Second,
	Transport: &http.Transport{
		MaxConnsPerHost:       4,
		MaxIdleConnsPerHost:   4,
		ExpectContinueTimeout: 20 * time.Second,
	},
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func ask(method, path string, body io.Reader,
	change func(*http.Request)) answer {
	var found answer
	request, err := http.NewRequest(method, url+path, body)
	check(err)
	if change != nil {
		change(request)
	}
	trace := &httptrace.ClientTrace{
		Got100Continue: func() { found.Continued = true },
		GotConn: func(got httptrace.GotConnInfo) {
			found.Reused = got.Reused
		},
	}
	context := httptrace.WithClientTrace(request.Context(), trace)
	response, err := client.Do(request.WithContext(context))
	check(err)
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	check(err)
	sum := sha256.Sum256(content)
	found.Status = response.StatusCode
	found.Headers = response.Header
	found.Size = len(content)
	found.Sha256 = hex.EncodeToString(sum[:])
	if len(content) < 4096 {
		found.Text = string(content)
	}
	return found
}

// Hides the length, so that the transport sends chunks.
type stream struct{ io.Reader }

func main() {
	size, err := strconv.Atoi(os.Args[2])
	check(err)
	upload := bytes.Repeat([]byte("0123456789"), size/10)
	whole := func() io.Reader { return bytes.NewReader(upload) }
	seen := map[string]interface{}{}

	ports := []string{}
	for count := 0; count < 10; count++ {
		ports = append(ports, ask("GET", "/port", nil, nil).Text)
	}
	seen["ports"] = ports
	seen["sized"] = ask("POST", "/count", whole(), nil)
	seen["chunked"] = ask("POST", "/count", stream{whole()},
		func(request *http.Request) {
			request.Trailer = http.Header{"X-Sum": {"7"}}
		})
	seen["expected"] = ask("PUT", "/count", whole(),
		func(request *http.Request) {
			request.Header.Set("Expect", "100-continue")
		})
	tooLong, err := strconv.Atoi(os.Args[3])
	check(err)
	refused := func() io.Reader {
		return bytes.NewReader(make([]byte, tooLong))
	}
	// The upload is refused while it is under way, and before it begins.
	seen["refused"] = ask("POST", "/count", refused(), nil)
	seen["unwanted"] = ask("POST", "/count", refused(),
		func(request *http.Request) {
			request.Header.Set("Expect", "100-continue")
		})
	seen["head"] = ask("HEAD", "/sized?9", nil, nil)
	seen["blocks"] = ask("GET", "/blocks?160", nil, nil)
	seen["bare"] = []int{
		ask("GET", "/status?204", nil, nil).Status,
		ask("GET", "/status?304", nil, nil).Status,
	}

	echoes := make([]string, 200)
	var group sync.WaitGroup
	for number := range echoes {
		group.Add(1)
		go func(number int) {
			defer group.Done()
			text := strconv.Itoa(number)
			body := bytes.NewReader([]byte(text))
			echoes[number] = ask("POST", "/echo", body, nil).Text
		}(number)
	}
	group.Wait()
	seen["echoes"] = echoes
	seen["port"] = ask("GET", "/port", nil, nil).Reused

	check(json.NewEncoder(os.Stdout).Encode(seen))
}
