/* limits.h - limits of what configuration files say of HTTP. */
#ifndef FL_WEB_LIMITS_H
#define FL_WEB_LIMITS_H

#define FL_WEB_LISTEN_BYTES 80 /* of HOST:PORT, with its NUL */

#endif
