package main

// programs are what this test program is under another name.
var programs = map[string]func(){"elbow": main, "crash": crashWithState, "hang": hangWithState}
