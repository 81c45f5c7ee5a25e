/* sandbox-helper: runs commands in a sandbox exactly once. See README.md and PROTOCOL.md. */
#include "helper.h"

#include <string.h>

int main(int argc, char **argv) {
    if (argc >= 2 && strcmp(argv[1], "--version") == 0) {
        char text[128];
        return !write_all(1, text, JOIN(text, "sandbox-helper ", NUMBER(PROTOCOL), " " SOURCE_HASH "\n"));
    }
    if (argc < 2) {
        static const char usage[] = "usage: sandbox-helper VERB PIECE... | --version\n";
        write_all(2, usage, sizeof usage - 1);
        return 64;
    }
    return client_main(argv[1], argc, argv);
}
