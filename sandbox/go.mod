module github.com/kaphera/kaphera/sandbox

go 1.26.0
