// Package admin is where a person or a machine looks at a running elbow and
// tells it what to do: metrics, health endpoints, a JSON API, the status page
// and, on a unix socket, the commands of an operator. [Client] is the other
// side of that socket, and [WriteStatus] and [WriteWhy] print what it returns.
//
// Everything that is shown is derived from one [Status], which in turn is
// derived from one pool.Table: the page, the API and the command line cannot
// disagree.
package admin
