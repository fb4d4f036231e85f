// Package chart renders the chart as Helm does, decodes what comes of it as the API server does, and
// holds it against what is promised.
//
// It has no cluster: whether the API server admits the objects, and whether they work, is
// for the end-to-end tests.
package chart
