/* What becomes descriptors 0 to 2 of a command, and the keeper's ends of it. */
#include "helper.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

bool open_terminal(int io[3], int ours[3]) {
    int unlocked = 0, master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    unsigned number;
    char name[64];
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlocked) < 0) return false;
    int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0 && /* Linux before 4.13; and libcs differ in the type of the second argument */
        syscall(SYS_ioctl, master, TIOCGPTN, &number) == 0 &&
        JOIN(name, "/dev/pts/", NUMBER(number)))
        slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    io[0] = io[1] = io[2] = slave;
    ours[0] = ours[1] = master;
    ours[2] = -1;
    return slave >= 0;
}

bool open_pipes(bool piped, bool merged, int io[3], int ours[3]) {
    int in[2], out[2], err[2];
    if (piped && pipe2(in, O_CLOEXEC) < 0) return false;
    if (!piped) {
        in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (in[0] < 0) { /* an empty pipe reads the same */
            if (pipe2(in, O_CLOEXEC) < 0) return false;
            close(in[1]);
        }
        in[1] = -1;
    }
    if (pipe2(out, O_CLOEXEC) < 0) return false;
    if (merged) err[0] = -1, err[1] = out[1];
    else if (pipe2(err, O_CLOEXEC) < 0) return false;
    ours[0] = in[1], ours[1] = out[0], ours[2] = err[0];
    io[0] = in[0], io[1] = out[1], io[2] = err[1];
    return true;
}
