"""More programs that lose digits, or keep them: series, losses, recurrences, differences of equal things; as of lost_digits.py."""

from __future__ import annotations

from typing import Final

import mpmath as mp

from tests.oracle.lost_digits import B, D, H, P, S, V, case, column, dot, matrix, sigmoid, softmax, variance


def angle(u: list[mp.mpf], v: list[mp.mpf]) -> mp.mpf:
    return mp.acos(dot(u, v) / mp.sqrt(dot(u, u) * dot(v, v)))


_A: Final = [[1.0, 1.0], [1.0, 1.0001]]
# fmt: off
CASES: Final = (
    case("log 1-p","«log(1 - p)»",lambda p:mp.log1p(-p),P(D,1e-10),P(S,1e-5),P(H,2e-3),P(D,0.3)),
    case("bernoulli number","t = «1 - exp(-x)»\nreturn x / t",lambda x:x/-mp.expm1(-x),P(D,1e-9),P(S,1e-4),P(S,-1e-3)),
    case("second remainder","«exp(x) - 1 - x»",lambda x:mp.expm1(x)-x,P(D,1e-5),P(S,1e-2)),
    case("remainder of log","«log(1 + x) - x»",lambda x:mp.log1p(x)-x,P(D,1e-6),P(S,1e-2)),
    case("nll of a sigmoid","p = 1 / (1 + exp(-x))\nreturn -«log(p)»",lambda x:mp.log1p(mp.exp(-x)),P(S,-100.),P(D,-800.),P(S,20.)),
    case("log of a fraction of powers","«log(exp(x) / (1 + exp(x)))»",lambda x:-mp.log1p(mp.exp(-x)),P(S,100.),P(S,-20.),P(D,-800.)),
    case("centred","d = x - x.mean()\nreturn (d ** 2).mean()",variance,P(S,V(1e4,1e4+1,1e4+3)),P(D,V(1e8,1e8+1,1e8+3))),
    case("gate","x * sigmoid(x)",lambda x:x*sigmoid(x),P(S,3.),P(B,0.7),P(H,-2.5),P(D,-30.),P(S,-1.25)),
    case("sum of a few","(x * 1.5 + 0.25).sum()",lambda x:mp.fsum([v*mp.mpf(1.5)+mp.mpf(0.25) for v in x]),P(B,V(0.1,0.2,0.3)),P(S,V(0.1,0.7,2.))),
    case("tanh alone","tanh(x)",lambda x:mp.tanh(x),P(B,0.4),P(H,0.3),P(S,2.),P(D,5.)),
    case("two products","«a * b - c * d»",lambda a,b,c_,d:a*b-c_*d,P(S,1001.,1003.,1002.,1002.),P(D,1e8+1,1e8-1,1e8,1e8)),
    case("fraction less one","«1 / (1 + x) - 1»",lambda x:1/(1+x)-1,P(D,1e-10),P(S,1e-5)),
    case("compound","«(1 + x / 1e6) ** 1e6»",lambda x:mp.power(1+x/mp.mpf(10)**6,10**6),P(S,1.),P(S,0.3)),
    case("compound fast","«(1 + x / 1e12) ** 1e12»",lambda x:mp.power(1+x/mp.mpf(10)**12,10**12),P(D,1.),P(D,0.3)),
    case("double angle","«cos(x) ** 2 - sin(x) ** 2»",lambda x:mp.cos(2*x),P(D,0.78539816),P(S,0.7853)),
    case("sine of a difference","«sin(x) * cos(y) - cos(x) * sin(y)»",lambda x,y:mp.sin(x-y),P(D,1.,1.-1e-9),P(S,1.,1.-1e-4)),
    case("logs of neighbours","«log(a) - log(b)»",lambda a,b:mp.log(a)-mp.log(b),P(D,3.,3.+1e-10),P(S,5.,5.001)),
    case("product by logs","«exp(log(a) + log(b))»",lambda a,b:a*b,P(D,1e150,1e100),P(S,1e20,1e15)),
    case("choose","l = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)\nreturn exp(l)",
        lambda n,k:mp.gamma(n+1)/mp.gamma(k+1)/mp.gamma(n-k+1),P(D,100.,50.),P(S,30.,12.)),
    case("root less one","«sqrt(1 + x ** 2) - 1»",lambda x:mp.sqrt(1+x*x)-1,P(D,1e-6),P(S,1e-3)),
    case("bend of cosine","c = 1 - cos(x)\nreturn «c / x ** 2»",lambda x:(1-mp.cos(x))/x**2,P(D,1e-6),P(S,1e-2),P(D,1.)),
    case("saturation","«1 - exp(-x * x)»",lambda x:-mp.expm1(-x*x),P(D,1e-6),P(S,1e-3),P(H,0.03)),
    case("symmetric sigmoid","«2 * sigmoid(x) - 1»",lambda x:mp.tanh(x/2),P(D,1e-9),P(S,1e-4),P(H,0.01),P(B,0.02)),
    case("differences of sums","c = x.cumsum(0)\nreturn «c[2] - c[1]»",lambda x:x[2],P(S,V(1e7,1.,0.3)),P(D,V(1e14,1.,0.3))),
    case("log of a determinant","«log(linalg.det(a))»",lambda a:mp.log(mp.det(matrix(a))),P(S,[[1e-30,0.],[0.,2e-30]])),
    case("inverse times","(«linalg.inv(a)» @ b).sum()",lambda a,b:mp.fsum(mp.lu_solve(matrix(a),column(b))),P(S,_A,V(1.,2.)),P(D,[[1.,1.],[1.,
        1.+1e-9]],V(1.,2.))),
    case("geometric","(«1 - r ** 10») / (1 - r)",lambda r:mp.fsum([r**k for k in range(10)]),P(D,1-1e-9),P(S,0.9999)),
    case("relative entropy","«x * log(x) - x * log(y)»",lambda x,y:x*(mp.log(x)-mp.log(y)),P(D,0.3,0.3+1e-10),P(S,0.3,0.3001)),
    case("log of a mean of powers","«log(exp(z).mean())»",lambda z:mp.log(mp.fsum(map(mp.exp,z))/len(z)),P(S,V(100.,99.,3.)),P(D,V(-800.,-801.,
        -803.))),
    case("tails of normals","«special.ndtr(b) - special.ndtr(a)»",lambda a,b:(mp.erfc(a/mp.sqrt(2))-mp.erfc(b/mp.sqrt(2)))/2,P(D,7.,7.5),P(S,4.,4.5)),
    case("Langevin","«1 / tanh(x) - 1 / x»",lambda x:mp.coth(x)-1/x,P(D,1e-4),P(S,1e-2)),
    case("focal","p = sigmoid(z)\nreturn -(«1 - p») ** 2 * log(p)",lambda z:sigmoid(-z)**2*mp.log1p(mp.exp(-z)),P(S,12.),P(D,30.),P(S,0.5)),
    case("summed by hand","s = 0.0\nfor i in range(3):\n    s = «s + x[i]»\nreturn s ** 2",lambda x:mp.fsum(x)**2,P(S,V(1e7,0.3,-1e7)),P(D,V(1e15,
        0.3,-1e15))),
    case("perplexity","p = softmax(z, 0)\nreturn exp(-«log(p)».mean())",lambda z:mp.exp(-mp.fsum(map(mp.log,softmax(z)))/len(z)),P(S,V(0.,-3.,
        5.)),P(D,V(0.,-1.,2.)),P(S,V(0.,-60.,20.))),
    case("relative error","(«a - b») / b",lambda a,b:(a-b)/b,P(S,1.0001,1.),P(D,1.+1e-10,1.)),
    case("similarity","(x * y).sum() / (x.norm() * y.norm())",lambda x,y:dot(x,y)/mp.sqrt(dot(x,x)*dot(y,y)),P(S,V(1.,2.),V(2.,-1.5)),P(D,V(1.,
        2.),V(0.3,0.7))),
    case("square of a sum less","«(a + b) ** 2 - a ** 2»",lambda a,b:(a+b)**2-a**2,P(S,1e3,1e-2),P(D,1e6,1e-6)),
    case("power of a sigmoid","(1 - sigmoid(x)) ** 3",lambda x:sigmoid(-x)**3,P(S,10.),P(D,25.)),
    case("log cosh of a difference","log(cosh(a - b))",lambda a,b:mp.log(mp.cosh(a-b)),P(S,1.,0.5),P(D,800.,-100.)),
    case("fourth moment","d = x - x.mean()\nv = (d ** 2).mean()\nreturn (d ** 4).mean() / v ** 2",
        lambda x:(lambda m:mp.fsum([(v-m)**4 for v in x])/len(x)/variance(x)**2)(mp.fsum(x)/len(x)),P(S,V(1.,2.,4.,9.)),P(D,V(1.,2.,4.,5.)),P(S,
        V(100.,102.,107.,90.))),
    case("exponent of a difference of logs","«exp(log(a) - log(b))»",lambda a,b:a/b,P(S,1e30,1e20),P(D,1e200,1e-5)),
    case("powers of two","«2 ** x - 1»",lambda x:mp.power(2,x)-1,P(D,1e-9),P(S,1e-4)),
    case("one less a power","«1 - x ** y»",lambda x,y:1-x**y,P(D,1-1e-10,3.),P(S,0.9999,2.)),
    case("discount","«(1 - r) ** 1e6»",lambda r:mp.power(1-r,10**6),P(S,1e-6),P(S,3e-7)),
    case("part less one","«1 - 1 / (1 + x)»",lambda x:x/(1+x),P(D,1e-10),P(S,1e-5)),
    case("cosine of a sum","«cos(x) * cos(y) - sin(x) * sin(y)»",lambda x,y:mp.cos(x+y),P(D,0.78539816,0.7853981),P(S,0.7853,0.785)),
    case("log of 1 + x by x","«log(1 + x) / x»",lambda x:mp.log1p(x)/x,P(D,1e-9),P(S,1e-4),P(S,-1e-3)),
    case("log1p by x","«log1p(x) / x»",lambda x:mp.log1p(x)/x,P(D,-1e-5),P(S,1e-2)),
    case("x less its log","«x - log(1 + x)»",lambda x:x-mp.log1p(x),P(D,1e-5),P(S,1e-2)),
    case("tan beyond x","«tan(x) - x»",lambda x:mp.tan(x)-x,P(S,1e-3),P(D,0.01)),
    case("tanh beyond x","«x - tanh(x)»",lambda x:x-mp.tanh(x),P(S,1e-3),P(D,0.01)),
    case("asin beyond x","«asin(x) - x»",lambda x:mp.asin(x)-x,P(S,1e-2),P(D,0.01)),
    case("atan beyond x","«x - atan(x)»",lambda x:x-mp.atan(x),P(S,1e-2),P(D,0.01)),
    case("sinh beyond x","«sinh(x) - x»",lambda x:mp.sinh(x)-x,P(S,1e-2),P(D,0.01)),
    case("heron","s = (a + b + c) / 2\n«sqrt(s * (s - a) * (s - b) * (s - c))»",
        lambda a,b,c_:mp.sqrt((a+b+c_)*(b+c_-a)*(a+c_-b)*(a+b-c_))/4,P(D,1.,0.5000001,0.5),P(S,1.,0.501,0.5),P(S,2.,1.0001,1.),P(D,0.5,0.5000001,1.)),
    case("heron by halves","s = 0.5 * (a + b + c)\n«(s * (s - a) * (s - b) * (s - c)) ** 0.5»",
        lambda a,b,c_:mp.sqrt((a+b+c_)*(b+c_-a)*(a+c_-b)*(a+b-c_))/4,P(D,1.,0.5000001,0.5),P(S,0.5,0.501,1.)),
    case("angle","«acos((u * v).sum() / (u.norm() * v.norm()))»",angle,P(D,V(1.,2.,3.),V(1.,2.,3.0001)),P(S,V(1.,2.,3.),V(1.,2.,3.01))),
    case("angle clamped","«acos(clamp(dot(u, v) / (u.norm() * v.norm()), -1, 1))»",angle,P(S,V(1.,2.,3.),V(1.,2.,3.01))),
    case("angle by cosine_similarity","«acos(nn.functional.cosine_similarity(u, v, dim=0))»",angle,P(S,V(1.,2.,3.),V(1.,2.,3.01))),
    case("product of powers","«exp(x) * exp(y)»",lambda x,y:mp.exp(x+y),P(S,90.,-80.),P(D,800.,-799.)),
    case("bessel without growth","«exp(-x) * special.i0(x)»",lambda x:mp.exp(-x)*mp.besseli(0,x),P(S,100.),P(D,800.)),
    case("log of bessel","«log(special.i0(x))»",lambda x:mp.log(mp.besseli(0,x)),P(S,100.),P(D,800.)),
    case("step of digamma","«digamma(x + 1) - digamma(x)»",lambda x:1/x,P(D,1e6),P(S,1e3)),
    case("quotient less one","«x / (x + 1) - 1»",lambda x:-1/(x+1),P(D,1e8),P(S,1e5)),
    case("one less a quotient","«1 - x / (1 + x)»",lambda x:1/(1+x),P(D,1e8),P(S,1e5)),
    case("difference quotient","h = 1e-8\nreturn «(sin(x + h) - sin(x)) / h»",lambda x:(mp.sin(x+mp.mpf(1e-8))-mp.sin(x))/mp.mpf(1e-8),P(D,1.)),
    case("difference quotient of exp","h = 1e-4\nreturn «(exp(x + h) - exp(x)) / h»",lambda x:mp.exp(x)*mp.expm1(mp.mpf(1e-4))/mp.mpf(1e-4),P(S,1.)),
    case("unit of a tiny vector","y = «x / x.norm()»\nreturn 2 * y[0]",lambda x:2*x[0]/mp.sqrt(dot(x, x)),P(S,V(1e-25,2e-25)),P(S,V(1e25,2e25))),
    case("tiny length","«x.norm()»",lambda x:mp.sqrt(dot(x, x)),P(S,V(1e-25,2e-25)),P(S,V(1e25,2e25))),
    case("arc near its end","«acos(x)»",lambda x:mp.acos(x),P(D,0.9999999),P(D,-0.9999999)),
    case("cube of a difference","(a - b) ** 3",lambda a,b:(a-b)**3,P(S,1.001,1.),P(B,1.5,1.25),P(H,2.,1.)),
)
# fmt: on
